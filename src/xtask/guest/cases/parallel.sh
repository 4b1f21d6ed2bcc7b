# Eight processes copy, compare, write, read back and delete at the same time.
work() {
    local folder=worker-$1
    mkdir "$folder"
    cp -a /usr/lib/python3* "$folder/copy"
    diff -r /usr/lib/python3* "$folder/copy" >/dev/null
    head -c 3000000 /dev/urandom >"$folder/random"
    local before
    before=$(md5sum <"$folder/random")
    dd if="$folder/random" of="$folder/direct" bs=128k oflag=direct,dsync iflag=fullblock conv=notrunc status=none 2>/dev/null ||
        cp "$folder/random" "$folder/direct"
    sync "$folder/direct"
    echo 1 >/proc/sys/vm/drop_caches
    [ "$(md5sum <"$folder/direct")" = "$before" ]
    rm -r "$folder"
}
workers=()
for n in 1 2 3 4 5 6 7 8; do
    work "$n" &
    workers+=($!)
done
for worker in "${workers[@]}"; do wait "$worker" || fail "a worker failed"; done
same "left behind" "" "$(ls)"
