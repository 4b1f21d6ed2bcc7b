# The host creates and deletes files while the guest lists their folder.
mkdir busy
for n in $(seq 50); do touch "busy/stays-$n"; done
host churn-start scratch/busy
for round in $(seq 100); do
    listing=$(ls -f busy) || fail "round $round: ls failed"
    stays=$(grep -c "^stays-" <<<"$listing" || true)
    same "entries that stay, round $round" 50 "$stays"
    [ "$((round % 10))" != 0 ] || echo 2 >/proc/sys/vm/drop_caches
done
host churn-stop
