# Uses the data directory of a lower tree through a writable layer, through a crash of the server.
data=$2/mariadb/data
started "$data"
ask "CREATE TABLE shop.kept (number INT PRIMARY KEY) ENGINE=InnoDB SELECT seq AS number FROM shop.seq_1_to_20000"
for client in 1 2 3 4; do
    (for turn in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        echo "START TRANSACTION; UPDATE shop.account SET balance = balance + 1 WHERE id = $client;
            UPDATE shop.account SET balance = balance - 1 WHERE id = $((turn * 1000 + client)); COMMIT;"
    done | mariadb --no-defaults --socket "$folder/socket") &
    clients="${clients:-} $!"
done
for client in $clients; do
    wait "$client" || fail "a client failed"
done
ask "ALTER TABLE shop.account FORCE"
ask "INSERT INTO shop.old VALUES (1001)"
ask "INSERT INTO shop.kept SELECT seq FROM shop.seq_20001_to_30000"
# Without a word to its clients and its files: what was committed is in the log.
kill -KILL "$server"
wait "$server" || true
started "$data"
grep -q "Starting crash recovery" "$folder/log" || fail "there was nothing to recover"
[ "$(ask "SELECT COUNT(*), SUM(number) FROM shop.kept")" = "30000	450015000" ] || fail "rows are missing"
[ "$(ask "SELECT SUM(balance), MAX(balance), COUNT(*) FROM shop.account")" = "0	20	50000" ] || fail "balances are wrong"
[ "$(ask "SELECT COUNT(*) FROM shop.old")" = 1001 ] || fail "an old row is missing"
checked=$(ask "CHECK TABLE shop.account, shop.kept, shop.old EXTENDED" | grep -c "status	OK")
[ "$checked" = 3 ] || fail "a table is damaged"
stopped
tar --sort=name --pax-option=delete=atime,delete=ctime -cf - -C "$1" . | sha256sum | cmp - "$3/fingerprint" ||
    fail "the tree below has changed"
