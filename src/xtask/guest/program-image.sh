# An OCI layout "layout" with the image "program": a shell, a user and a program that says how it was started. Arguments: the
# folder, a static busybox.
set -eu
cd "$1"
mkdir -p tree/bin tree/usr/bin tree/etc tree/srv
cp "$2" tree/bin/busybox
ln -s busybox tree/bin/sh
echo 'worker:x:1234:777::/srv:/bin/sh' >tree/etc/passwd
cat >tree/usr/bin/say <<'SAY'
#!/bin/sh
echo "arguments: $*"
echo "ids: $(/bin/busybox id -u) $(/bin/busybox id -g)"
echo "home: $HOME in $(/bin/busybox pwd)"
echo "greeting: $GREETING"
echo written >letter && /bin/busybox cat letter
exit 7
SAY
chmod 755 tree/usr/bin/say
chown 1234:777 tree/srv
tar --numeric-owner -C tree -cf layer.tar .
umoci init --layout layout
umoci new --image layout:program
umoci raw add-layer --image layout:program layer.tar
umoci config --image layout:program --config.user worker --config.workingdir /srv \
    --config.entrypoint say --config.cmd one --config.cmd 'two words' --config.env "GREETING=it's here"
