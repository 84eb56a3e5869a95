#!/bin/sh
# Installs the Debian packages that the system tests need, and nothing else; does nothing where all are there.
# `packages.sh --missing` only prints what is missing. Needs root to install.
set -eu

packages='
libvirt-daemon-system libvirt-clients
qemu-system-x86 qemu-utils
openvswitch-switch
iproute2 procps
kmod cpio
syslinux syslinux-common mtools dosfstools
systemd-container debootstrap
zfs-fuse
qemu-guest-agent
buildah
'

missing=''
for package in $packages; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing="$missing $package"
done

if [ "${1:-}" = --missing ]; then
  echo $missing
  exit 0
fi
[ -n "$missing" ] || exit 0

# Daemons of the packages are started by the lab itself (and have no systemd to start them in a container).
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ] && [ ! -d /run/systemd/system ]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod 0755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi

export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=300 update
# shellcheck disable=SC2086
apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 install --no-install-recommends $missing
