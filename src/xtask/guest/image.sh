# An OCI layout "layout" with the image "root", made by umoci. Arguments: the tree, the folder.
set -eu
cd "$2"
# No more zeros at the end than there must be: skopeo's zstd:chunked takes no others.
tar -b1 --numeric-owner --xattrs --xattrs-include='*' --one-file-system -C "$1" -cf base.tar .
mkdir -p top/usr/share top/etc
# What the layer below has there is removed; what is added is found.
touch top/usr/share/.wh.zoneinfo
echo "from the second layer" >top/etc/second-layer
tar -b1 --numeric-owner --owner=0 --group=0 -C top -cf top.tar .
umoci init --layout layout
umoci new --image layout:root
umoci raw add-layer --image layout:root base.tar
umoci raw add-layer --image layout:root top.tar
umoci config --image layout:root --config.cmd /bin/bash
rm -r base.tar top.tar top
