mkdir /run/second
mount -t tmpfs tmpfs /run/second
chmod 755 /scratch
trap 'umount /run/second' EXIT
NO_COLOR=1 pjdfstest -c /vfsd/pjdfstest.toml -p /scratch -s /run/second
