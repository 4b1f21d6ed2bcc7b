# /scratch is an empty bucket that may be written to.
cd /scratch
same "an empty bucket" "" "$(ls -A)"

# A tree with directories, modes, times and a link of each kind.
mkdir /tmp/source
cp -a /usr/share/perl5/. /tmp/source/perl5
ln -s perl5/nothing /tmp/source/dangling
ln -s ../scratch /tmp/source/up
mkdir /tmp/source/empty
install -m 4711 /bin/true /tmp/source/program
touch -d '2001-02-03 04:05:06.5 UTC' /tmp/source/program
cp -a /tmp/source tree
diff -r --no-dereference /tmp/source tree
same "mode and time of a copy" "$(cd /tmp/source && stat -c '%a %u %g %.Y' program)" "$(cd tree && stat -c '%a %u %g %.Y' program)"
same "a link" "perl5/nothing" "$(readlink tree/dangling)"

# Changes: in place, at the end, cut, and through an editor's rename.
printf 'changed' | dd of=tree/perl5/strict-copy conv=notrunc status=none
printf 'first line\n' >tree/log
for number in $(seq 50); do echo "line $number" >>tree/log; done
same "lines of a log" 51 "$(wc -l <tree/log)"
dd if=/dev/urandom of=/tmp/large bs=1M count=20 status=none
cp /tmp/large tree/large
printf 'in the middle' | dd of=/tmp/large bs=1 seek=7654321 conv=notrunc status=none
printf 'in the middle' | dd of=tree/large bs=1 seek=7654321 conv=notrunc status=none
cmp /tmp/large tree/large
truncate -s 1000000 /tmp/large tree/large
cmp /tmp/large tree/large
sed -i 's/first/very first/' tree/log
same "an edited line" "very first line" "$(head -1 tree/log)"

# Names.
mv tree/log tree/renamed
mv tree/empty tree/still-empty
mkdir tree/a
cp -a tree/perl5/. tree/a/b
mv tree/a tree/moved
[ ! -e tree/a ] || fail "a moved directory is still there"
rm -r tree/moved/b
same "what is left" "" "$(ls -A tree/moved)"
exec 7<tree/renamed
rm tree/renamed
same "a removed file that is open" "very first line" "$(head -1 <&7)"
exec 7<&-
refused ln tree/large tree/hard-link
refused mkfifo tree/fifo
refused rmdir tree
chmod 600 tree/large
chown 7:8 tree/large
python3 -c 'import os; os.setxattr("tree/large", "user.colour", b"dark red")'
sync -f tree

# What is there without the guest's cache.
drop_caches
cmp /tmp/large tree/large
same "mode and owner" "600 7 8" "$(stat -c '%a %u %g' tree/large)"
same "an extended attribute" "dark red" "$(python3 -c 'import os; print(os.getxattr("tree/large", "user.colour").decode())')"
diff -r --no-dereference /tmp/source/perl5 tree/perl5 | grep -v 'Only in tree/perl5: strict-copy' && fail "the tree differs"

find tree -mindepth 0 -printf '%y %m %U %G %p\n' | while read -r kind mode uid gid path; do
    case $kind in
    f) sum=$(sha256sum <"$path" | cut -d' ' -f1) ;;
    l) sum=$(printf %s "$(readlink "$path")" | sha256sum | cut -d' ' -f1) ;;
    *) sum=- ;;
    esac
    echo "$kind $mode $uid $gid $sum $path"
done >/tmp/manifest
cp /tmp/manifest manifest
rm -rf /tmp/source /tmp/large
# What is left is read by another client: the next case must not clean it up.
cd /
sync
umount -l /scratch
