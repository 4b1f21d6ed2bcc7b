# What follows runs in the guest's root below a layer of the guest's own, whose upper is in /scratch.
if [ -z "${OVER_ROOT:-}" ]; then
    before=$(sha256sum </var/lib/dpkg/status)
    mkdir -p upper work /srv/merged
    mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work /srv/merged
    for folder in dev proc run sys; do
        mount --bind "/$folder" "/srv/merged/$folder"
    done
    ended=0
    OVER_ROOT=yes chroot /srv/merged /bin/bash "$0" || ended=$?
    umount -R /srv/merged
    same "packages of the root" "$before" "$(sha256sum </var/lib/dpkg/status)"
    [ -s upper/var/lib/dpkg/status ] || fail "the layer has no packages"
    exit "$ended"
fi
mkdir -p /scratch
cd /scratch
