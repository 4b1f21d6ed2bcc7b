# Runs what is measured in a tree that is a root of its own. KIND says where it is: "image" and "folder" are the second
# device, the latter below an overlay of the guest's; "block" is a disk.
set -e
. /vfsd/lib.sh
cd /
tree=/scratch
case $KIND in
block)
    mkdir -p "$tree"
    mount -t ext4 /dev/ubda "$tree"
    ;;
folder)
    mkdir -p /run/layer
    mount -t tmpfs tmpfs /run/layer
    mkdir /run/layer/upper /run/layer/work /run/layer/tree
    mount -t overlay overlay -o lowerdir=/scratch,upperdir=/run/layer/upper,workdir=/run/layer/work /run/layer/tree
    tree=/run/layer/tree
    ;;
esac
mount -t proc proc "$tree/proc"
mount --bind /dev "$tree/dev"
chroot "$tree" python3 - </vfsd/roots.py
umount "$tree/dev" "$tree/proc"
[ "$KIND" != folder ] || umount "$tree"
# The session, which works in /scratch, empties it after each script: what is mounted there is the tree that the next
# guest starts from.
umount -l /scratch
