# Enters the folder of the User-Mode Linux kernel and becomes the kernel. Runs
# in a mount namespace of its own: enter-uml FOLDER RUN-FOLDER ARGUMENT...
set -eu
folder=$1
run=$2
shift 2
mount --rbind /dev/shm "$folder/dev/shm"
mount --rbind /proc "$folder/proc"
mount --bind "$run" "$folder/run/vfsd"
[ -z "${DISK:-}" ] || mount --bind "$DISK" "$folder/run/vfsd/disk"
exec chroot "$folder" /usr/bin/linux.uml "$@"
