# A package made on the spot: conffile, set-user-ID program, links, owner,
# maintainer scripts.
mkdir -p package/DEBIAN package/etc package/usr/lib/onthespot
cat >package/DEBIAN/control <<'CONTROL'
Package: onthespot
Version: 1.0
Architecture: all
Maintainer: Tester <tester@localhost>
Description: made inside a guest
CONTROL
echo /etc/onthespot.conf >package/DEBIAN/conffiles
printf '#!/bin/sh\nset -e\ntouch /var/lib/onthespot-configured\n' >package/DEBIAN/postinst
printf '#!/bin/sh\nset -e\nrm -f /var/lib/onthespot-configured\n' >package/DEBIAN/postrm
chmod 755 package/DEBIAN/postinst package/DEBIAN/postrm
echo 'answer = 42' >package/etc/onthespot.conf
cp /bin/true package/usr/lib/onthespot/program
chmod 4755 package/usr/lib/onthespot/program
ln package/usr/lib/onthespot/program package/usr/lib/onthespot/same
ln -s program package/usr/lib/onthespot/link
for n in $(seq 200); do echo "$n" >"package/usr/lib/onthespot/data-$n"; done
chown -R daemon:daemon package/usr/lib/onthespot/data-7
dpkg-deb --build package onthespot.deb

dpkg -i onthespot.deb
same "state" "install ok installed" "$(dpkg-query -W -f '${Status}' onthespot)"
same "verified" "" "$(dpkg --verify onthespot)"
same "mode" 4755 "$(stat -c %a /usr/lib/onthespot/program)"
same "links" 2 "$(stat -c %h /usr/lib/onthespot/same)"
same "owner" daemon "$(stat -c %U /usr/lib/onthespot/data-7)"
[ -e /var/lib/onthespot-configured ] || fail "postinst did not run"
echo 'answer = 43' >/etc/onthespot.conf
dpkg -r onthespot
[ -e /etc/onthespot.conf ] || fail "a changed conffile went away"
[ ! -e /usr/lib/onthespot ] || fail "files stayed behind: $(ls /usr/lib/onthespot)"
dpkg -P onthespot
[ ! -e /etc/onthespot.conf ] || fail "the conffile stayed behind"
same "audit" "" "$(dpkg --audit)"
