# A MariaDB server of the user nobody: what both scripts need. Arguments of them: the tree, the mount, a folder.
set -eu
cd /
folder=$3/mariadb
fail() {
    echo "FAIL: $*"
    tail -n 20 "$folder/log"
    exit 1
}
nobody="setpriv --reuid=65534 --regid=65534 --clear-groups"
ask() {
    mariadb --no-defaults --socket "$folder/socket" --skip-column-names --batch --execute "$1"
}
# Starts it on a data directory, and waits until it answers.
started() {
    $nobody mariadbd --no-defaults --datadir "$1" --socket "$folder/socket" --pid-file "$folder/pid" --skip-networking \
        --skip-grant-tables --innodb-buffer-pool-size=32M --innodb-log-file-size=16M >>"$folder/log" 2>&1 &
    server=$!
    tries=0
    until ask "SELECT 1" >/dev/null 2>&1; do
        kill -0 "$server" 2>/dev/null || fail "the server ended"
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || fail "the server does not answer"
        sleep 0.1
    done
}
stopped() {
    ask SHUTDOWN
    wait "$server" || fail "the server did not end well"
    server=
}
server=
trap '[ -z "$server" ] || kill -KILL "$server"' EXIT
