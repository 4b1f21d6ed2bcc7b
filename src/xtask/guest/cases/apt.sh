export DEBIAN_FRONTEND=noninteractive
before=$(find /usr -xdev | wc -l)
apt-get -q -y --no-install-recommends install /srv/packages/*.deb
same "greeting" "Hello, world!" "$(hello)"
drop_caches
for package in hello manpages-dev; do
    same "state of $package" "install ok installed" "$(dpkg-query -W -f '${Status}' "$package")"
    same "verified $package" "" "$(dpkg --verify "$package")"
done
after=$(find /usr -xdev | wc -l)
[ "$((after - before))" -gt 1500 ] || fail "only $((after - before)) files more"
apt-get -q -y purge hello manpages-dev manpages
refused hello
same "audit" "" "$(dpkg --audit)"
