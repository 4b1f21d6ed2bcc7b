# What the demo shows. A line that starts with "$ " is a command, run after it.
show() {
    echo "$ $*"
    eval "$*"
}
cd /root
show "uname -srm"
show "grep ' / ' /proc/mounts"
show "df -h / | tail -1"
show "du -sh /usr"
show "dpkg --list | grep -c ^ii"

show "echo 'hello from the guest' > /root/letter && sync"
host cat root/letter

host write root/answer
show "cat /root/answer"

show "mkdir tree && cd tree && for n in \$(seq 1000); do echo \$n > file-\$n; done && ls | wc -l"
show "ln file-1 hard-link && ln -s file-2 soft-link && mv file-3 renamed && stat -c '%n has %h links' hard-link"
show "chown daemon:daemon renamed && chmod 2750 renamed && ls -l renamed"
host stat root/tree/renamed

show "exec 9< file-4 && flock -x 9"
host flock root/tree/file-4
