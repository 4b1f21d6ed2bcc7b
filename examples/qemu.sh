#!/bin/sh
# Boots KERNEL with DIRECTORY as its root file system, served by vfsd over virtio-fs.
#
#   examples/qemu.sh KERNEL DIRECTORY
#
# The kernel needs CONFIG_VIRTIO_FS and CONFIG_VIRTIO_PCI built in, or an initrd that loads them. From Linux
# 6.12 on it uses a request queue per CPU. queue-size=1024 allows requests of 1 MiB; QEMU's default of 128 allows
# 496 KiB.
set -eu
kernel=$1 directory=$2
run=$(mktemp -d)
vfsd serve --socket-path "$run/vfsd.sock" --tag root "$directory" &
daemon=$!
trap 'kill "$daemon" 2>/dev/null || true; wait "$daemon" || true; rm -rf "$run"' EXIT
while [ ! -S "$run/vfsd.sock" ]; do
    kill -0 "$daemon"
    sleep 0.1
done

# ACCELERATOR=tcg where /dev/kvm is there but does not work, as inside some virtual machines.
if [ -w /dev/kvm ]; then found=kvm; else found=tcg; fi
accelerator=${ACCELERATOR:-$found}

qemu-system-x86_64 -nodefaults -nographic -serial mon:stdio \
    -machine "q35,memory-backend=mem,accel=$accelerator" -cpu max -smp 4 -m 1G \
    -object memory-backend-memfd,id=mem,size=1G,share=on \
    -chardev "socket,id=fs0,path=$run/vfsd.sock" \
    -device vhost-user-fs-pci,chardev=fs0,tag=root,queue-size=1024,num-request-queues=4 \
    -kernel "$kernel" -append "console=ttyS0 rootfstype=virtiofs root=root rw init=/bin/sh"
