# /scratch is an empty volume in a bucket: what is left here is looked for on another host.
cd /scratch
mkdir -p kept
cp -a /usr/share/perl5 kept/tree
diff -r --no-dereference /usr/share/perl5 kept/tree
dd if=/dev/urandom of=kept/large bs=1M count=24 status=none
cp kept/large kept/second
printf 'in the middle' | dd of=kept/second bs=1 seek=7654321 conv=notrunc status=none
truncate -s 1000000 kept/second
ln kept/second kept/hard-link
ln -s tree kept/link
mknod kept/device c 5 1
install -m 4711 /bin/true kept/program
setfattr -n user.kept -v value kept/program 2>/dev/null || python3 -c 'import os; os.setxattr("kept/program", "user.kept", b"value")'
fallocate -p -o 4096 -l 8192 kept/large
mkdir kept/removed && mv kept/removed kept/renamed
chown -R 7:8 kept/tree
exec 7<kept/hard-link
rm kept/hard-link
same "a removed file that is open" 1000000 "$(wc -c <&7)"
exec 7<&-
(cd kept && find . -type f -print0 | sort -z | xargs -0 sha256sum) >sums
find kept -printf '%y %m %U %G %s %n %l %p\n' | grep -v '^d' | sort >names
sync
# The next case must not clean it up.
cd /
umount -l /scratch
