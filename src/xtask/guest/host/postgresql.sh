# Uses the data directory of a lower tree through a writable layer, through a crash of the server. Arguments: the
# tree, the mount, a folder.
set -eu
cd /
bin=$(dirname "$(ls /usr/lib/postgresql/*/bin/postgres | tail -n 1)")
data=$2/postgresql/data
folder=$3
fail() {
    echo "FAIL: $*"
    tail -n 20 "$folder/postgresql/log"
    exit 1
}
as() {
    runuser -u postgres -- "$@"
}
started() {
    as "$bin/pg_ctl" -D "$data" -w -l "$folder/postgresql/log" -o "-c listen_addresses= -k $folder/postgresql" start >/dev/null
}
ask() {
    as "$bin/psql" -h "$folder/postgresql" -XAtc "$1" postgres
}
trap 'as "$bin/pg_ctl" -D "$data" -m immediate stop >/dev/null 2>&1 || true' EXIT

started
as "$bin/pgbench" -h "$folder/postgresql" -n -c 4 -t 100 postgres
ask "CREATE TABLE kept AS SELECT generate_series(1, 20000) AS number" >/dev/null
ask "CHECKPOINT" >/dev/null
ask "INSERT INTO kept SELECT generate_series(20001, 30000)" >/dev/null
ask "VACUUM FULL pgbench_accounts" >/dev/null
# Without a word to its clients and its files: what was committed is in the log.
as "$bin/pg_ctl" -D "$data" -m immediate stop >/dev/null
started
[ "$(ask "SELECT count(*), sum(number) FROM kept")" = "30000|450015000" ] || fail "rows are missing"
[ "$(ask "SELECT count(*) FROM pgbench_history")" = 400 ] || fail "transactions are missing"
sums=$(ask "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)")
[ "$sums" = t ] || fail "balances are wrong"
as "$bin/pg_ctl" -D "$data" -w -m fast stop >/dev/null
trap - EXIT
tar --sort=name --pax-option=delete=atime,delete=ctime -cf - -C "$1" . | sha256sum | cmp - "$folder/fingerprint" ||
    fail "the tree below has changed"
