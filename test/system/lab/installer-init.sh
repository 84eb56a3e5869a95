#!/bin/busybox sh
# The lab's operating system installer: writes the bootable image it carries to the first disk and reboots.
/bin/busybox mkdir -p /bin /proc /sys /dev
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec < /dev/ttyS0 > /dev/ttyS0 2>&1

# The first disk by address, which need not be the first one the kernel finds.
modprobe -a virtio_pci virtio_scsi sd_mod
tries=0
until [ -d /sys/bus/scsi/devices/0:0:0:0/block ] || [ $tries -ge 50 ]; do usleep 100000; tries=$((tries + 1)); done
disk=$(ls /sys/bus/scsi/devices/0:0:0:0/block)

echo
echo "INSTALLER started: $(cat /proc/cmdline)"
# muster.hold=<seconds> keeps the installer running, so that a test can act in the middle of it.
for word in $(cat /proc/cmdline); do
  case $word in muster.hold=*) sleep "${word#muster.hold=}" ;; esac
done
if gunzip -c /image.gz | dd of="/dev/$disk" bs=64k 2>/dev/null; then
  sync
  echo 'INSTALLER done'
  reboot -f
fi
echo 'INSTALLER failed'
poweroff -f
