#!/bin/busybox sh
# The init of libvirt's guest: works in both of its file systems and powers off.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
mount -t virtiofs share /share || echo "no share"
mount -t virtiofs other /other || echo "no other"
cat /share/hello
mkdir /share/folder
echo "from the guest" >/share/folder/file
mv /share/folder/file /share/folder/letter
chown 12:34 /share/folder/letter
echo "on top" >>/other/below
umount /share /other
poweroff -f
