# Sourced by the scripts that run in a guest. Exit status 77 means: skipped,
# the last line says why.

set -euo pipefail

fail() {
    echo "FAIL: $*"
    exit 1
}

skip() {
    echo "SKIP: $*"
    exit 77
}

# Asks the host to do something and waits for it: host WORD [ARGUMENT...]
host() {
    local answer
    echo "##vfsd host $*"
    IFS= read -r answer </dev/console || fail "the host does not answer: $*"
    [ "$answer" = ok ] || fail "on the host, $*: $answer"
}

# Succeeds when the command fails.
refused() {
    if "$@" >/dev/null 2>&1; then
        fail "should have been refused: $*"
    fi
}

# same WHAT EXPECTED ACTUAL
same() {
    [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"
}

# Forgets every clean page, dentry and inode of the guest.
drop_caches() {
    sync
    echo 3 >/proc/sys/vm/drop_caches
}
