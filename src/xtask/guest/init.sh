#!/bin/busybox sh
# First process of a test guest: mounts the virtio-fs device "root" as the root
# file system, runs the session in it, unmounts, hands over the kernel log.
# Lines that start with "##vfsd" are for the program that started the guest.

/bin/busybox --install -s /bin
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
stty -F /dev/console -echo 2>/dev/null

finish() {
    echo "##vfsd kernel-log"
    dmesg
    echo "##vfsd end"
    # The last line must be out before the machine is.
    sleep 0.2
    poweroff -f
}

while read -r module; do
    insmod "/modules/$module" || echo "##vfsd trouble cannot load $module"
done </modules/order

if ! mount -t virtiofs root /newroot; then
    echo "##vfsd trouble cannot mount the virtio-fs device"
    finish
fi

mount --bind /dev /newroot/dev
mkdir -p /newroot/dev/shm /newroot/dev/pts
mount -t tmpfs tmpfs /newroot/dev/shm
mount -t devpts devpts /newroot/dev/pts
mount -t proc proc /newroot/proc
mount -t sysfs sysfs /newroot/sys
mount -t tmpfs tmpfs /newroot/run
mkdir /newroot/run/vfsd
cp -r /session/. /newroot/run/vfsd
chroot /newroot ln -sfn /run/vfsd /vfsd
if [ -e /session/data ]; then
    # The scripts work in it.
    mkdir -p /newroot/scratch
    mount -t virtiofs data /newroot/scratch || echo "##vfsd trouble cannot mount the second device"
fi
hostname guest
ip link set lo up 2>/dev/null

if [ -e /session/interactive ]; then
    stty -F /dev/console sane 2>/dev/null
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        setsid -c chroot /newroot /bin/bash -l </dev/console >/dev/console 2>&1
else
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        chroot /newroot /bin/sh /vfsd/run
fi

rm /newroot/vfsd
sync
# What a script mounted or left running must not hold the root.
kill -9 -1 2>/dev/null
for mount in $(awk '{ print $2 }' /proc/mounts | grep '^/newroot/' | sort -r); do
    umount "$mount"
done
umount /newroot || echo "##vfsd trouble cannot unmount the root"
finish
