# Mounts with the kernel's overlayfs what a guest has left, and looks whether it is the same.
# Arguments: lower, upper, an empty directory on the upper's file system for work and mount.
set -eu
work=$3/work merged=$3/merged
mkdir "$work" "$merged"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$work,redirect_dir=on,index=off,metacopy=off" "$merged"
trap 'umount "$merged"' EXIT
same() {
    [ "$2" = "$3" ] || { echo "$1: expected '$2', found '$3'"; exit 1; }
}
zones=$merged/usr/share/zoneinfo
if [ -e "$merged/srv/layers" ]; then
    diff -r --no-dereference "$1/usr/share/zoneinfo/Europe" "$zones/Europe"
    diff -r --no-dereference "$1/usr/share/zoneinfo/Asia" "$merged/srv/layers/asia"
    [ ! -e "$zones/Asia" ] || { echo "a moved directory is still there"; exit 1; }
    same "a directory made again" "" "$(ls "$zones/America")"
    same "the last line" "# vfsd 9999" "$(tail -n 1 "$merged/etc/login.defs")"
    same "mode of the program" 711 "$(stat -c %a "$merged/bin/sleep")"
    same "attribute" copied "$(getfattr --only-values --absolute-names -n user.mark "$merged/etc/debconf.conf")"
    same "audit" "" "$(chroot "$merged" dpkg --audit)"
fi

# A layer that the guest's own overlay has written: Linux 6.7 finds its whiteouts.
[ -e "$merged/srv/nested" ] || exit 0
case $(uname -r) in
[1-5].* | 6.[0-6].* | 6.[0-6]-*) exit 0 ;;
esac
nested=$3/nested
mkdir "$nested"
mount -t overlay overlay -o "lowerdir=$merged/srv/nested/upper:$zones,redirect_dir=follow,metacopy=on" "$nested"
trap 'umount "$nested"; umount "$merged"' EXIT
[ ! -e "$nested/Europe/Paris" ] || { echo "a file that the guest's overlay removed is there"; exit 1; }
same "a directory that the guest's overlay made again" "" "$(ls "$nested/Antarctica")"
[ ! -e "$nested/UTC" ] || { echo "a file that the guest's overlay moved is still there"; exit 1; }
same "names" "" "$(ls "$nested" | grep -x 'UTC\|Africa')"
diff -r "$merged/srv/nested/reference" "$nested/Moved"
same "content" changed "$(cat "$nested/Pacific/Fiji")"
