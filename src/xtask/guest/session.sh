# Runs every script of the session, in the guest's root. The output of each
# stands between its "case" and its "status" line.

for script in /vfsd/cases/???; do
    [ -e "$script" ] || continue
    name=${script##*/}
    mkdir -p /scratch
    cd /scratch || exit 1
    echo "##vfsd case $name"
    timeout -k 5 "$(cat "$script.limit")" /bin/bash "$script" </dev/null 2>&1
    echo "##vfsd status $name $?"
    cd /
    if [ -e /vfsd/data ]; then
        # A file system of its own, which may be read-only.
        find /scratch -mindepth 1 -delete 2>/dev/null
    else
        rm -rf /scratch
    fi
done
