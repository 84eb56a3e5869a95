#!/usr/bin/perl
# Keeps one daemon running (the arguments) and reaps every orphan below it, as systemd would. libvirt waits until a stopped
# QEMU has been reaped, and pid 1 of a container may take a second for that.
# USR1 stops the daemon and keeps it down, USR2 starts it again, TERM stops it and ends. Perl, because every Debian has it.
use strict;
use warnings;
use POSIX qw(WNOHANG);

my ($prctl, $set_child_subreaper) = (157, 36);    # x86-64
syscall($prctl, $set_child_subreaper, 1, 0, 0, 0) == 0 or die "prctl: $!\n";

my ($wanted, $ending, $daemon) = (1, 0, 0);
$SIG{USR1} = sub { $wanted = 0; kill 'TERM', $daemon if $daemon };
$SIG{USR2} = sub { $wanted = 1 };
$SIG{TERM} = $SIG{INT} = sub { ($wanted, $ending) = (0, 1); kill 'TERM', $daemon if $daemon };
$SIG{CHLD} = sub { };    # ends the pause below at once

until ($ending && !$daemon) {
  if ($wanted && !$daemon) {
    $daemon = fork // die "fork: $!\n";
    exec @ARGV or exit 127 if !$daemon;
  }
  # Not a waitpid that blocks: Perl goes on with it after a signal, and would not see what the signal wants.
  select undef, undef, undef, 0.1;
  while ((my $dead = waitpid -1, WNOHANG) > 0) { $daemon = 0 if $dead == $daemon }
}
