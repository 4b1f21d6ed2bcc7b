# /scratch is an archive of this root's /usr/share/perl5, shown by a plugin in Python.
cd /scratch
diff -r --no-dereference /usr/share/perl5 perl5
drop_caches
diff -r --no-dereference /usr/share/perl5 perl5
same "files" "$(find /usr/share/perl5 -type f | wc -l)" "$(find perl5 -type f | wc -l)"
refused touch perl5/new
[ ! -e perl5/missing ] || fail "a file that is not there"
