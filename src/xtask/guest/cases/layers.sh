# The root is a writable layer over a tree that never changes. What is left in /srv/layers is looked at
# again through the kernel's own overlay of the same directories (layers-kernel.sh).
mkdir /srv/layers
cd /srv/layers
cp -a /usr/share/zoneinfo reference

# A directory of the lower tree moves, is merged, and moves back.
mv /usr/share/zoneinfo/Europe /usr/share/zoneinfo/Moved
same "files of the moved directory" "$(ls reference/Europe | wc -l)" "$(ls /usr/share/zoneinfo/Moved | wc -l)"
[ ! -e /usr/share/zoneinfo/Europe ] || fail "the old name is still there"
diff -r reference/Europe /usr/share/zoneinfo/Moved
touch /usr/share/zoneinfo/Moved/New
mv /usr/share/zoneinfo/Moved /usr/share/zoneinfo/Europe
rm /usr/share/zoneinfo/Europe/New
diff -r reference/Europe /usr/share/zoneinfo/Europe
mv /usr/share/zoneinfo/Asia /srv/layers/asia

# What is removed and made again is empty, and stays so.
rm -r /usr/share/zoneinfo/America
mkdir /usr/share/zoneinfo/America
same "a directory made again" "" "$(ls /usr/share/zoneinfo/America)"
drop_caches
same "the same, asked again" "" "$(ls /usr/share/zoneinfo/America)"

# Copied up on the first change, and still the same file for those who had it open.
exec 8</etc/login.defs
before=$(stat -c '%i %d' /etc/login.defs)
echo "# vfsd 9999" >>/etc/login.defs
same "number and device over the copy" "$before" "$(stat -c '%i %d' /etc/login.defs)"
tail -n 1 <&8 >seen
same "what an open file sees of a later write" "# vfsd 9999" "$(cat seen)"
exec 8<&-
ls -i /etc | awk '$2 == "login.defs" { print $1 }' >listed
same "the number that a listing has" "${before% *}" "$(cat listed)"

# The mode of a program that runs.
sleep 60 &
chmod 711 /bin/sleep
same "mode of a running program" 711 "$(stat -c %a /bin/sleep)"
kill %1
/bin/sleep 0

# Times, owners and holes survive the copy.
before=$(stat -c '%u %g %a %Y %s' /etc/debconf.conf)
setfattr -n user.mark -v copied /etc/debconf.conf
same "attributes over the copy" "$before" "$(stat -c '%u %g %a %Y %s' /etc/debconf.conf)"

rm -rf reference
ln /etc/passwd /srv/layers/passwd
sync
