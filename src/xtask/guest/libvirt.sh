# A libvirt that nobody else sees starts a domain and waits for its end. Arguments: a folder with domain.xml, passwd lines, bin/vfsd
# and the trees; to be run in namespaces of mounts and processes that end with it. Status 77: libvirt cannot run here.
set -eu
cd "$1"
cannot() {
    echo "$*"
    exit 77
}
mkdir private
mount -t tmpfs private private || cannot "no file system in memory can be mounted"
for tree in etc var; do
    mkdir -p "private/$tree/upper" "private/$tree/work"
    mount -t overlay -o "lowerdir=/$tree,upperdir=$PWD/private/$tree/upper,workdir=$PWD/private/$tree/work" overlay "/$tree" ||
        cannot "no layer can be put over /$tree"
done
mount -t tmpfs run /run || cannot "nothing can be mounted on /run"

# The packages leave users to another one, which would start services.
echo 'libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin' >>/etc/passwd
echo 'libvirt-qemu:x:64055:' >>/etc/group
echo 'libvirt:x:64056:' >>/etc/group
grep -q '^kvm:' /etc/group || echo 'kvm:x:64057:' >>/etc/group
mkdir -p /etc/libvirt /etc/qemu/vhost-user
cp 10-vfsd.json /etc/qemu/vhost-user/
printf '%s\n' 'user = "root"' 'group = "root"' 'security_driver = "none"' 'cgroup_controllers = []' \
    'stdio_handler = "file"' >/etc/libvirt/qemu.conf

libvirtd >libvirtd.log 2>&1 &
tries=0
until virsh -c qemu:///system version >version.log 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 120 ] || cannot "libvirtd does not answer: $(tail -n 5 libvirtd.log)"
    sleep 0.5
done
cat version.log

bin/vfsd serve lower --upper upper --socket-path other.sock >serve.log 2>&1 &
tries=0
until [ -S other.sock ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || { cat serve.log && exit 1; }
    sleep 0.1
done

virsh -c qemu:///system create domain.xml || { tail -n 5 libvirtd.log && exit 1; }
while virsh -c qemu:///system domstate vfsd >state.log 2>&1; do sleep 0.2; done
cat serial.log /var/log/libvirt/qemu/*virtiofsd.log serve.log

# What libvirt started ends with its domain.
tries=0
while cat /proc/[0-9]*/cmdline | tr '\0' ' ' | grep -q 'virtiofsd --fd='; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || { echo "a daemon is left" && exit 1; }
    sleep 0.1
done
echo "ended"
