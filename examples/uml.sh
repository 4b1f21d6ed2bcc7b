#!/bin/sh
# Boots a User-Mode Linux guest with DIRECTORY as its root file system, served by vfsd over virtio-fs. No KVM, no emulator.
#
#   examples/uml.sh LINUX INITRD DIRECTORY
#
# LINUX is a User-Mode Linux 6.16 or newer with CONFIG_VIRTIO_UML. INITRD loads the modules fuse and virtiofs where they
# are not built in, mounts the tag "root" and changes into it. 26 is the file system device of the virtio specification.
# The guest reads the tag from the device: --tag is needed. /dev/shm must allow executable mappings.
set -eu
linux=$1 initrd=$2 directory=$3
run=$(mktemp -d)
vfsd serve --socket-path "$run/vfsd.sock" --tag root "$directory" &
daemon=$!
trap 'kill "$daemon" 2>/dev/null || true; wait "$daemon" || true; rm -rf "$run"' EXIT
while [ ! -S "$run/vfsd.sock" ]; do
    kill -0 "$daemon"
    sleep 0.1
done

TMPDIR=/dev/shm "$linux" mem=1G initrd="$initrd" "virtio_uml.device=$run/vfsd.sock:26" \
    con=null con0=fd:0,fd:1 quiet seccomp=auto
