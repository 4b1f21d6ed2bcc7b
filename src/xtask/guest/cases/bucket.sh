# /scratch is a bucket that another client has filled.
cd /scratch
expected=$(wc -l <manifest)
[ "$expected" -gt 1200 ] || fail "the manifest has $expected lines"
sha256sum --check --quiet manifest
same "files found" "$((expected + 1))" "$(find . -type f | wc -l)"
same "entries of a folder" 7 "$(ls small | wc -l)"
same "an empty folder with a marker" "" "$(ls marked)"
same "mode and owner of another tool" "755 1 1 981173106" "$(stat -c '%a %u %g %Y' program)"
same "a program" "ran from a bucket" "$(./program)"
refused touch new
refused rm large
refused mkdir folder
[ ! -e missing ] || fail "a file that is not there"

drop_caches
sha256sum --check --quiet manifest
for offset in 39999999 0 12345678 4096 30000000; do
    dd if=large bs=1 skip="$offset" count=1 2>/dev/null | od -An -tx1
done >/tmp/cold
cat large >/tmp/large
for offset in 39999999 0 12345678 4096 30000000; do
    dd if=/tmp/large bs=1 skip="$offset" count=1 2>/dev/null | od -An -tx1
done >/tmp/warm
cmp /tmp/cold /tmp/warm

same "rows of a database" 20000 "$(sqlite3 'file:database?immutable=1' 'select count(*) from numbers')"
same "its integrity" ok "$(sqlite3 'file:database?immutable=1' 'pragma integrity_check')"
git -c safe.directory='*' clone -q /scratch/repository.git /tmp/clone
git -C /tmp/clone fsck --full --strict --no-progress
same "files of the clone" 200 "$(ls /tmp/clone | wc -l)"
rm -rf /tmp/clone /tmp/large
