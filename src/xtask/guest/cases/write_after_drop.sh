# A file created write-only, written again after its pages are gone: the
# kernel reads the page back to fill it, through the same open file.
exec 3>new
head -c 5000 /dev/zero >&3
sync
echo 3 >/proc/sys/vm/drop_caches
echo -n HELLO >&3
exec 3>&-
drop_caches
same "size" 5005 "$(stat -c %s new)"
same "end" HELLO "$(tail -c 5 new)"
same "the rest" 5000 "$(tr -cd '\0' <new | wc -c)"

# The same for a file opened to append.
exec 3>>new
echo -n " AGAIN" >&3
exec 3>&-
drop_caches
same "end" "HELLO AGAIN" "$(tail -c 11 new)"
