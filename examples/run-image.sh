#!/bin/sh
# Runs a container image as a virtual machine: its files are the root, fetched as they are read; its entry point is the
# program. Nothing is unpacked, and what the guest writes is gone when it ends (UPPER=DIR keeps it).
#
#   examples/run-image.sh KERNEL IMAGE [COMMAND [ARGUMENT...]]
#   examples/run-image.sh /boot/vmlinuz docker://registry.example.org/python:3.12 python3 -c 'print("hello")'
#
# KERNEL needs CONFIG_VIRTIO_FS and CONFIG_VIRTIO_PCI built in, as distributions' cloud kernels have. COMMAND replaces the image's
# own, as docker run does. The exit status is the program's. Needs qemu-system-x86_64, jq, and a static busybox
# (Debian's busybox-static), which is the guest's first process: the image needs no shell.
set -eu
kernel=$1 image=$2
shift 2
cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vfsd}
memory=${MEMORY:-1G}
run=$(mktemp -d)
daemon=
trap 'status=$?; [ -z "$daemon" ] || { kill "$daemon" 2>/dev/null || true; wait "$daemon" || true; }; rm -rf "$run"; exit $status' EXIT

# Fetches what says what is where, not the content, and says what the image runs.
before=$(du -sk "$cache" 2>/dev/null | cut -f1)
vfsd image inspect --cache-dir "$cache" "$image" >"$run/inspect.json"
mkdir -p "$run/initrd/bin" "$run/initrd/proc" "$run/initrd/root"
# As a shell says it: user, working_dir, environment, and what is run.
jq -r '.config as $config
    | (if ($ARGS.positional | length) > 0 then $ARGS.positional else $config.cmd // [] end) as $command
    | "user=\($config.user // "" | @sh)",
      "directory=\($config.working_dir // "" | if . == "" then "/" else . end | @sh)",
      "in_environment() { env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=linux HOME=\"$home\" \($config.env // [] | @sh) \"$@\"; }",
      "set -- \(($config.entrypoint // []) + $command | @sh)"' \
    "$run/inspect.json" --args -- "$@" >"$run/initrd/program"

cat >"$run/initrd/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t virtiofs root /root || poweroff -f
for name in proc sys dev; do [ -d /root/$name ] || mkdir /root/$name; done
mount -t proc proc /root/proc
mount -t sysfs sysfs /root/sys
mount -t devtmpfs devtmpfs /root/dev
mkdir -p /root/dev/pts /root/dev/shm /root/dev/.init
mount -t devpts devpts /root/dev/pts
mount -t tmpfs tmpfs /root/dev/shm
cp /bin/busybox /root/dev/.init/busybox
hostname guest
ip link set lo up
. /program
# A name is looked up in the image; what is no number there is none.
user=${user:-0}
name=${user%%:*}
entry=$(awk -F: -v name="$name" '$1 == name || $3 == name { print; exit }' /root/etc/passwd 2>/dev/null)
uid=$(echo "$entry" | cut -d: -f3) gid=$(echo "$entry" | cut -d: -f4) home=$(echo "$entry" | cut -d: -f6)
case $user in *:*)
    group=${user#*:}
    gid=$(awk -F: -v name="$group" '$1 == name || $3 == name { print $3; exit }' /root/etc/group 2>/dev/null)
    gid=${gid:-$group} ;;
esac
home=${home:-/}
within() { chroot /root /dev/.init/busybox "$@"; }
if [ $# -eq 0 ]; then
    echo "the image names no program: say which"
    status=125
else
    program=$1
    shift
    # The program is looked for where the image's own PATH says.
    in_environment chroot /root /dev/.init/busybox sh -c '
        cd "$1" || exit 126
        program=$(command -v "$3") || { echo "$3: not found in the image"; exit 127; }
        owner=$2
        shift 3
        exec /dev/.init/busybox start-stop-daemon -S -c "$owner" -x "$program" -- "$@"
    ' run "$directory" "${uid:-$name}:${gid:-0}" "$program" "$@" </dev/console
    status=$?
fi
sync
umount -a -r 2>/dev/null
echo "##status $status"
poweroff -f
INIT
chmod 755 "$run/initrd/init"
cp "$(command -v busybox)" "$run/initrd/bin/busybox"
(cd "$run/initrd" && find . | busybox cpio -o -H newc) >"$run/initrd.cpio" 2>/dev/null

upper=${UPPER:-$run/upper}
mkdir -p "$upper"
vfsd serve --log-level warn --socket-path "$run/vfsd.sock" --tag root --cache-dir "$cache" --upper "$upper" "$image" &
daemon=$!
while [ ! -S "$run/vfsd.sock" ]; do
    kill -0 "$daemon"
    sleep 0.1
done

if [ -w /dev/kvm ]; then found=kvm; else found=tcg; fi
qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -serial stdio -monitor none \
    -machine "q35,memory-backend=mem" -accel "${ACCELERATOR:-$found}" -cpu "${CPU:-max}" -m "$memory" \
    -object "memory-backend-memfd,id=mem,size=$memory,share=on" \
    -chardev "socket,id=fs,path=$run/vfsd.sock" -device vhost-user-fs-pci,chardev=fs,tag=root,queue-size=1024 \
    -kernel "$kernel" -initrd "$run/initrd.cpio" -append "console=ttyS0 quiet loglevel=0 panic=-1" |
    tr -d '\r' | tee "$run/console" | grep --line-buffered -v '^##status '

size=$(jq '[.layers[].size] | add // 0' "$run/inspect.json")
echo "of the image's $((size / 1024)) KiB (compressed) the cache took $(($(du -sk "$cache" | cut -f1) - ${before:-0})) KiB" >&2
status=$(sed -n 's/^##status //p' "$run/console" | tail -n 1)
exit "${status:-1}"
