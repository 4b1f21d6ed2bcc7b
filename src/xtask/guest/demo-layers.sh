# What the demo of a writable layer shows.
show() {
    echo "$ $*"
    eval "$*"
}
cd /root
show "grep ' / ' /proc/mounts"
show "dpkg --list | grep -c ^ii"
show "echo 'hello from the guest' > /root/letter && sync"
host cat root/letter
show "ls /usr/share/perl5 | head -3"
show "mv /usr/share/perl5 /usr/share/moved && ls /usr/share/moved | head -3"
show "ls -i /etc/debian_version && echo changed >> /etc/debian_version && ls -i /etc/debian_version"
show "rm -r /usr/share/common-licenses && mkdir /usr/share/common-licenses && ls -A /usr/share/common-licenses | wc -l"
host list
