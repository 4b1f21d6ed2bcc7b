# What the demo of a volume shows.
show() {
    echo "$ $*"
    eval "$*"
}
cd /scratch
show "grep ' /scratch ' /proc/mounts"
show "df -h /scratch | tail -1"
show "mkdir tree && cd tree && for n in \$(seq 1000); do echo \$n > file-\$n; done && ls | wc -l"
show "ln file-1 hard-link && ln -s file-2 soft-link && mv file-3 renamed && stat -c '%n has %h links' hard-link"
show "chown daemon:daemon renamed && chmod 4750 renamed && mknod null c 1 3 && ls -l renamed null"
show "exec 9<file-4 && rm file-4 && cat <&9"
show "sync file-5 && cp -a /usr/share/perl5 . && diff -r /usr/share/perl5 perl5 && echo 'the same'"
