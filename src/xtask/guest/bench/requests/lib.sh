# Runs a program twice between two looks at the daemon's counters: counted NAME COMMAND [ARGUMENT...]
# First with a guest that has forgotten all it had read, then with what the first run has left.
counted() {
    local name=$1 when
    shift
    for when in cold warm; do
        sync
        if [ "$when" = cold ]; then
            echo 3 >/proc/sys/vm/drop_caches
        fi
        # What is sent without being waited for has arrived.
        sleep 0.5
        host begin
        "$@"
        sleep 0.5
        host end "$name" "$when"
    done
}
