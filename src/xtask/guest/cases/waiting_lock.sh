# Processes wait for a lock that the host holds; everything else goes on.
touch lock
host flock-take scratch/lock
waiters=()
for n in 1 2 3 4 5 6 7 8; do
    flock -x lock touch "got-$n" &
    waiters+=($!)
done
sleep 0.5
mkdir folder
for n in $(seq 200); do echo "$n" >"folder/$n"; done
drop_caches
same "files" 200 "$(ls folder | wc -l)"
same "content" 200 "$(cat folder/200)"
same "waiters that got the lock" "" "$(ls got-* 2>/dev/null || true)"

# (The virtio-fs driver forwards no interrupt: only the lock ends a wait.)
host lock-release
for waiter in "${waiters[@]}"; do wait "$waiter"; done
same "waiters that got the lock" 8 "$(ls got-* | wc -l)"
host flock-exclusive-allowed scratch/lock
