touch lock

# The guest holds it.
exec 9<lock
flock -x 9
host flock-exclusive-refused scratch/lock
host flock-shared-refused scratch/lock
flock -s 9
host flock-exclusive-refused scratch/lock
host flock-shared-allowed scratch/lock
flock -u 9
host flock-exclusive-allowed scratch/lock

# The host holds it.
host flock-take scratch/lock
refused flock -n -x lock true
refused flock -n -s lock true
host lock-release
flock -n -x lock true

# Closing gives it back, as does the death of its holder.
flock -x 9
exec 9<&-
host flock-exclusive-allowed scratch/lock
flock -x lock sleep 1000 &
holder=$!
until ! flock -n -x lock true; do sleep 0.1; done
host flock-exclusive-refused scratch/lock
kill -9 "$holder"
pkill -9 -x sleep || true
wait "$holder" || true
flock -x lock true
host flock-exclusive-allowed scratch/lock
