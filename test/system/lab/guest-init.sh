#!/bin/busybox sh
# First and only program of a lab guest: shows its disks and nics on the serial console, obeys the ACPI power button,
# and then does what lines on the console say (`ping <ip>`, `agent`, `sh <command>`), so that guests need no configuration.
/bin/busybox mkdir -p /bin /proc /sys /dev
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec < /dev/ttyS0 > /dev/ttyS0 2>&1
stty -echo

modprobe -a virtio_pci virtio_net button evdev 8021q

# The button is watched before anything slow: an ACPI stop sent to a guest that does not listen yet is lost.
for device in /sys/class/input/event*; do
  [ "$(cat "$device/device/name" 2>/dev/null)" = 'Power Button' ] || continue
  (dd if="/dev/input/${device##*/}" of=/dev/null bs=24 count=1 2>/dev/null && echo 'MUSTER-GUEST power button' && sync && poweroff -f) &
done

# The kernel names disks as its parallel probes happen to end. Looked for one after the other they are named by their address,
# so that a name shows what the hypervisor decided.
modprobe scsi_mod scan=manual
modprobe -a virtio_scsi sd_mod
target=0
misses=0
while [ $misses -lt 3 ]; do
  echo "0 $target 0" > /sys/class/scsi_host/host0/scan
  tries=0
  if [ -d /sys/bus/scsi/devices/0:0:$target:0 ]; then
    until [ -d /sys/bus/scsi/devices/0:0:$target:0/block ] || [ $tries -ge 50 ]; do usleep 20000; tries=$((tries + 1)); done
  else
    misses=$((misses + 1))
  fi
  target=$((target + 1))
done

echo
grep -q muster.diskboot /proc/cmdline && echo 'DISKBOOT-OK'
echo "BOOT $(cat /proc/sys/kernel/random/boot_id) memory_kib=$(awk '/MemTotal/ {print $2}' /proc/meminfo) cpus=$(grep -c ^processor /proc/cpuinfo)"
for path in /sys/block/sd*; do
  [ -e "$path" ] || continue
  # <host>:<channel>:<target>:<lun>
  address=$(basename "$(readlink -f "$path/device")")
  echo "DISK ${path##*/} sectors=$(cat "$path/size") driver=$(cat "/sys/class/scsi_host/host${address%%:*}/proc_name") address=$address"
done
ip link set lo up
number=0
while [ -e "/sys/class/net/eth$number" ]; do
  mac=$(cat "/sys/class/net/eth$number/address")
  tail=${mac#*:*:*:*:}
  ip="10.$((77 + number)).$((0x${tail%:*})).$((0x${tail#*:}))"
  ip link set "eth$number" up
  ip addr add "$ip/16" dev "eth$number"
  echo "NIC eth$number mac=$mac ip=$ip"
  number=$((number + 1))
done
echo 'MUSTER-GUEST ready'

# A QEMU guest agent of three commands: what comes through libvirt's channel is seen without the real one's libraries.
guest_agent() {
  modprobe virtio_console
  until name=$(grep -ls org.qemu.guest_agent /sys/class/virtio-ports/*/name); do usleep 100000; done
  port=$(basename "$(dirname "$name")")
  exec 3<> "/dev/$port"
  while :; do
    while read -r line <&3; do
      case $line in
        *'"guest-sync'*)
          id=${line##*'"id":'}
          echo "{\"return\":${id%%[!0-9]*}}" >&3 ;;
        *'"guest-exec-status"'*)
          echo "{\"return\":{\"exited\":true,\"exitcode\":$code,\"out-data\":\"$(base64 -w 0 /agent-out)\"}}" >&3 ;;
        *'"guest-exec"'*)
          data=${line##*'"input-data":"'}
          echo "${data%%'"'*}" | base64 -d > /agent-in
          sh /agent-in > /agent-out 2>&1
          code=$?
          echo '{"return":{"pid":1}}' >&3 ;;
      esac
    done
    usleep 200000
  done
}

while read -r verb rest; do
  case $verb in
    ping)
      if ping -c 1 -W 2 "$rest" > /dev/null 2>&1; then echo "PING $rest OK"; else echo "PING $rest FAIL"; fi ;;
    agent) guest_agent > /dev/null 2>&1 & echo 'AGENT begins' ;;
    sh) echo "SH $(eval "$rest" 2>&1 | tr '\n' ' ')" ;;
  esac
done
sleep 2147483647
