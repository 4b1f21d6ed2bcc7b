#!/bin/sh
# Boots KERNEL with DIRECTORY as its root file system, served by vfsd over virtio-fs.
#
#   examples/cloud-hypervisor.sh KERNEL DIRECTORY
#
# cloud-hypervisor closes its connection and connects again when the guest reboots: --reconnect keeps the daemon there.
set -eu
kernel=$1 directory=$2
run=$(mktemp -d)
vfsd serve --reconnect --socket-path "$run/vfsd.sock" "$directory" &
daemon=$!
trap 'kill "$daemon" 2>/dev/null || true; wait "$daemon" || true; rm -rf "$run"' EXIT
while [ ! -S "$run/vfsd.sock" ]; do
    kill -0 "$daemon"
    sleep 0.1
done

cloud-hypervisor --kernel "$kernel" --cpus boot=4 --memory size=1G,shared=on \
    --fs "tag=root,socket=$run/vfsd.sock,num_queues=4,queue_size=1024" \
    --cmdline "console=ttyS0 rootfstype=virtiofs root=root rw init=/bin/sh" --serial tty --console off
