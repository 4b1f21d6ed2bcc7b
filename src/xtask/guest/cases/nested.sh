# An overlay of the guest's kernel, as container engines mount it: layers and upper lie in the root, which is a
# writable layer itself. What is left in /srv/nested is looked at again on the host (layers-kernel.sh).
mkdir -p /srv/nested/upper /srv/nested/work /srv/nested/merged
cd /srv/nested
zones=/usr/share/zoneinfo
mounted() {
    mount -t overlay overlay \
        -o "lowerdir=$zones,upperdir=upper,workdir=work,$1" merged
    trap 'cd /; umount /srv/nested/merged' EXIT
}
unmounted() {
    umount merged
    trap - EXIT
}
mounted redirect_dir=on,metacopy=on
cp -a $zones/Africa reference

rm merged/Europe/Paris
rm -r merged/Antarctica
mkdir merged/Antarctica
mv merged/UTC merged/Universal-Time
mv merged/Africa merged/Moved
echo changed >merged/Pacific/Fiji
chmod 600 merged/Pacific/Guam
touch merged/New

look() {
    [ ! -e merged/Europe/Paris ] || fail "$1: a removed file is there"
    ! ls merged/Europe | grep -qx Paris || fail "$1: a removed file is listed"
    same "$1: a directory made again" "" "$(ls merged/Antarctica)"
    [ ! -e merged/UTC ] || fail "$1: the old name of a file is there"
    [ ! -e merged/Africa ] || fail "$1: the old name of a directory is there"
    cmp merged/Universal-Time $zones/UTC
    diff -r reference merged/Moved
    same "$1: content" changed "$(cat merged/Pacific/Fiji)"
    same "$1: mode" 600 "$(stat -c %a merged/Pacific/Guam)"
    [ -e merged/New ] || fail "$1: a new file is missing"
}
look "at first"
unmounted
drop_caches
mounted redirect_dir=on,metacopy=on
look "mounted again"
unmounted

# What an overlay needs of its upper was there: the kernel has nothing to say.
! dmesg | grep -i "overlayfs.*\(missing\|does not\|failed\|fall back\)" || fail "the kernel complains"

# A layer that a program unpacks, as container engines do.
same "whiteout" "character special file 0:0" "$(stat -c '%F %Hr:%Lr' upper/UTC)"
mkdir layer
mknod layer/UTC c 0 0
mv layer/UTC layer/Europe
[ -c layer/Europe ] || fail "a whiteout that was moved is none"
mount -t overlay overlay -o "lowerdir=layer:$zones" merged
[ ! -e merged/Europe ] || fail "a whiteout hides nothing"
umount merged
rm -r work
