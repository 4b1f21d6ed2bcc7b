# The driver uses one request queue for each CPU, as far as the device has
# them, and each of them works.
vectors=$(grep -c -- '-requests' /proc/interrupts)
cpus=$(nproc)
expected=$((QUEUES < cpus ? QUEUES : cpus))
same "request queues in use" "$expected" "$vectors"
for cpu in $(seq 0 "$((cpus - 1))"); do
    taskset -c "$cpu" cp /usr/bin/bash "copy-$cpu"
    taskset -c "$cpu" sync "copy-$cpu"
done
echo 3 >/proc/sys/vm/drop_caches
for cpu in $(seq 0 "$((cpus - 1))"); do
    taskset -c "$cpu" cmp /usr/bin/bash "copy-$cpu"
done
idle=$(awk '/-requests/ { sum = 0; for (i = 2; i <= cpus + 1; i++) sum += $i; if (sum == 0) print $NF }' cpus="$cpus" /proc/interrupts)
same "request queues that never answered" "" "$idle"
