# Makes a PostgreSQL data directory with tables in a tree that is not served yet. Arguments: the tree, the mount,
# a folder.
set -eu
cd /
bin=$(dirname "$(ls /usr/lib/postgresql/*/bin/postgres | tail -n 1)")
install -d -o postgres -g postgres "$1/postgresql" "$3/postgresql"
as() {
    runuser -u postgres -- "$@"
}
as "$bin/initdb" -D "$1/postgresql/data" -A trust -N >/dev/null
as "$bin/pg_ctl" -D "$1/postgresql/data" -w -l "$3/postgresql/log" -o "-c listen_addresses= -k $3/postgresql" start >/dev/null
as "$bin/pgbench" -h "$3/postgresql" -i -q -s 2 postgres
as "$bin/pg_ctl" -D "$1/postgresql/data" -w -m fast stop >/dev/null
tar --sort=name --pax-option=delete=atime,delete=ctime -cf - -C "$1" . | sha256sum >"$3/fingerprint"
