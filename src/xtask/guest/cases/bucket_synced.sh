# Each of these brings something into the bucket: new files, and what is appended to one.
mkdir -p kept/synced
for n in $(seq 60); do
    seq "$n" 500 >"kept/synced/$n"
    sync -d "kept/synced/$n"
    [ $((n % 3)) -gt 0 ] || mv "kept/synced/$n" "kept/synced/moved-$n"
done
for n in $(seq 40); do
    seq "$n" 300 >>kept/appended
    sync -d kept/appended
done
