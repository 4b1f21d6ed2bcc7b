# Two guests run this at the same time, each on a writable layer of its own over one lower tree. GUEST is 1 or 2.
zones=/usr/share/zoneinfo
before=$(stat -c '%i' /etc/login.defs)
names=$(ls "$zones/Europe" | wc -l)
# Links lead to directories that go.
files=$(find "$zones/Europe" -type f)
[ -n "$files" ] || fail "no files to change"

host meet
# Each changes, moves and removes what the other does, too.
echo "guest $GUEST" >>/etc/login.defs
for zone in $files; do
    echo "guest $GUEST" >>"$zone"
done
case $GUEST in
1)
    rm -r "$zones/America"
    mv "$zones/Asia" /srv/asia
    ;;
2)
    mv "$zones/America" /srv/america
    rm -r "$zones/Asia"
    mkdir "$zones/Asia"
    echo new >"$zones/Asia/new"
    ;;
esac
chmod -R go-rwx /usr/share/doc

host meet
# All is done in both: nothing of the other's is seen.
for round in cached uncached; do
    same "own line, $round" "guest $GUEST" "$(tail -n 1 /etc/login.defs)"
    same "lines of guests, $round" 1 "$(grep -c '^guest' /etc/login.defs)"
    same "inode number, $round" "$before" "$(stat -c '%i' /etc/login.defs)"
    same "names, $round" "$names" "$(ls "$zones/Europe" | wc -l)"
    for zone in $files; do
        same "$zone, $round" "guest $GUEST" "$(tail -n 1 "$zone")"
    done
    [ ! -e "$zones/America" ] || fail "what was moved or removed is still there"
    case $GUEST in
    1) [ -e /srv/asia/Tokyo ] && [ ! -e "$zones/Asia" ] && [ ! -e /srv/america ] ;;
    2) [ -e /srv/america/New_York ] && same "$round" new "$(ls "$zones/Asia")" ;;
    esac || fail "the directories are not as this guest has left them, $round"
    same "modes, $round" "" "$(find /usr/share/doc -perm /077 ! -type l)"
    drop_caches
done
