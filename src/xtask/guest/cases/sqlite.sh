# Two writers beside each other: every transaction takes the database's locks.
for mode in delete wal; do
    database=$mode.db
    sqlite3 "$database" "pragma journal_mode=$mode; create table t(writer, n, filler)" >/dev/null
    for writer in 1 2; do
        (
            echo ".timeout 60000"
            echo "pragma synchronous=normal;"
            for n in $(seq 250); do
                echo "begin immediate; insert into t values($writer, $n, hex(randomblob(400)));"
                echo "update t set filler = hex(randomblob(300)) where n = $n - 1; commit;"
            done
        ) | sqlite3 -bail "$database" >"$mode.$writer.log" 2>&1 &
    done
    wait -n || fail "a writer failed: $(cat "$mode".*.log)"
    wait -n || fail "a writer failed: $(cat "$mode".*.log)"
    same "errors of the writers" "" "$(grep -h -i error "$mode".*.log || true)"
    drop_caches
    same "rows in $mode mode" 500 "$(sqlite3 "$database" 'select count(*) from t')"
    same "rows of each writer" 250 "$(sqlite3 "$database" 'select count(distinct n) from t where writer = 1')"
    same "integrity in $mode mode" ok "$(sqlite3 "$database" 'pragma integrity_check')"
done
