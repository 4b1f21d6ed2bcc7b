# What the demo of an image shows.
show() {
    echo "$ $*"
    eval "$*"
}
cd /root
show "grep ' / ' /proc/mounts"
show "cat /etc/second-layer"
show "ls /usr/share/zoneinfo 2>&1 || echo 'the second layer has removed it'"
show "dpkg --list | grep -c ^ii"
show "du -sh /usr"
show "echo 'hello from the guest' > /root/letter && sync"
host cat root/letter
show "mv /usr/share/perl5 /usr/share/moved && ls /usr/share/moved | head -3"
host list
