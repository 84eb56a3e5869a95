#!/bin/busybox sh
# First and only program of a lab guest: shows its disks and nics on the serial console, obeys the ACPI power button,
# and then does what lines on the console say (`ping <ip>`, `sh <command>`), so that guests need no configuration.
/bin/busybox mkdir -p /bin /proc /sys /dev
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec < /dev/ttyS0 > /dev/ttyS0 2>&1
stty -echo

modprobe -a virtio_pci virtio_scsi sd_mod virtio_net button evdev 8021q

# The button is watched before anything slow: an ACPI stop sent to a guest that does not listen yet is lost.
for device in /sys/class/input/event*; do
  [ "$(cat "$device/device/name" 2>/dev/null)" = 'Power Button' ] || continue
  (dd if="/dev/input/${device##*/}" of=/dev/null bs=24 count=1 2>/dev/null && echo 'MUSTER-GUEST power button' && sync && poweroff -f) &
done

tries=0
until [ -e /dev/sda ] || [ $tries -ge 50 ]; do usleep 100000; tries=$((tries + 1)); done

echo
grep -q muster.diskboot /proc/cmdline && echo 'DISKBOOT-OK'
echo "BOOT $(cat /proc/sys/kernel/random/boot_id) memory_kib=$(awk '/MemTotal/ {print $2}' /proc/meminfo) cpus=$(grep -c ^processor /proc/cpuinfo)"
for path in /sys/block/sd*; do
  [ -e "$path" ] || continue
  address=$(readlink -f "$path/device")
  host=${address##*/}
  host=host${host%%:*}
  echo "DISK ${path##*/} sectors=$(cat "$path/size") driver=$(cat "/sys/class/scsi_host/$host/proc_name") model=$(cat "$path/device/model" | tr ' ' '_')"
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

while read -r verb rest; do
  case $verb in
    ping)
      if ping -c 1 -W 2 "$rest" > /dev/null 2>&1; then echo "PING $rest OK"; else echo "PING $rest FAIL"; fi ;;
    sh) echo "SH $(eval "$rest" 2>&1 | tr '\n' ' ')" ;;
  esac
done
sleep 2147483647
