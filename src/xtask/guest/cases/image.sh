# The root is an image of two layers, with a writable layer over it.
same "a file of the second layer" "from the second layer" "$(cat /etc/second-layer)"
[ ! -e /usr/share/zoneinfo ] || fail "the second layer has removed it"
same "audit" "" "$(dpkg --audit)"
same "a program with a library" Linux "$(python3 -c 'import os; print(os.uname().sysname)')"
# Every file that a package brought is there as it was packed.
cd /
find var/lib/dpkg/info -name '*.md5sums' -exec cat {} + |
    grep -v -e ' usr/share/doc/' -e ' usr/share/man/' -e ' usr/share/locale/' -e ' usr/share/info/' -e ' usr/share/zoneinfo/' >/tmp/sums
[ "$(wc -l </tmp/sums)" -gt 1000 ] || fail "too few sums"
md5sum --quiet --check /tmp/sums
drop_caches
md5sum --quiet --check /tmp/sums
# What is in the image is changed in the layer over it.
before=$(stat -c '%i' /etc/debian_version)
echo changed >>/etc/debian_version
same "the number of a changed file" "$before" "$(stat -c '%i' /etc/debian_version)"
mv /usr/share/perl5 /usr/share/perl5-moved
mv /usr/share/perl5-moved /usr/share/perl5
rm -r /usr/share/bash-completion
mkdir /usr/share/bash-completion
same "a directory made again" "" "$(ls /usr/share/bash-completion)"
