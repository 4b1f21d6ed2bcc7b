# What the demo of a bucket shows.
show() {
    echo "$ $*"
    eval "$*"
}
cd /scratch
show "grep ' /scratch ' /proc/mounts"
show "ls -l | head -8"
show "find . -type f | wc -l"
show "sha256sum --check --quiet manifest && echo 'every object has the bytes that were put'"
show "ls -l program && ./program"
show "echo new > file || echo 'the bucket is read-only'"
