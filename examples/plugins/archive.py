#!/usr/bin/env python3
"""A zip or tar file as a directory, read-only: archive.py FILE.

What is stored in the file as it is (all of a tar, the uncompressed members of a zip) is read from there by vfsd
itself; what is compressed is unpacked as it is read.
"""

import calendar
import os
import stat
import struct
import sys
import tarfile
import threading
import zipfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../plugins/python"))

import vfsd_plugin as vfsd  # noqa: E402  pylint: disable=wrong-import-position


class Stored(vfsd.File):
    """A member that is in the archive as it is."""

    def __init__(self, descriptor, offset, attributes):
        self.data = (descriptor, offset)
        self.attributes = lambda: attributes
        self.size = attributes.size

    def read(self, offset, size):
        descriptor, start = self.data
        return vfsd.FileRange(descriptor, start + offset, max(0, min(size, self.size - offset)))


class Packed(vfsd.File):
    """A member that has to be unpacked, from its start whenever a read goes back."""

    def __init__(self, opener, lock, attributes):
        self.opener = opener
        self.lock = lock
        self.stream = None
        self.attributes = lambda: attributes

    def read(self, offset, size):
        with self.lock:
            if self.stream is None:
                self.stream = self.opener()
            self.stream.seek(offset)
            return self.stream.read(size)


class Link(vfsd.Symlink):
    """A symbolic link."""

    def __init__(self, target):
        self.target = lambda: target
        self.attributes = lambda: vfsd.Attributes(size=len(os.fsencode(target)))


def place(root, path):
    """The directory that a member belongs into, which is made if need be, and its name there. None for a member that has no
    place below the root."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or any("\0" in part for part in parts):
        return None
    for part in parts[:-1]:
        below = root.names.get(part)
        if not isinstance(below, vfsd.Tree):
            below = root.names[part] = vfsd.Tree()
        root = below
    return root, parts[-1]


def find(root, path):
    """What has a path, or None."""
    found = place(root, path)
    return found and found[0].names.get(found[1])


def add(root, path, node, attributes):
    """Puts a member where it belongs. A directory keeps what is in it already."""
    found = place(root, path)
    if found is None:
        return
    directory, name = found
    if node is None:
        node = directory.names.get(name)
        if isinstance(node, vfsd.Tree):
            node.attributes = lambda: attributes
            return
        node = vfsd.Tree(attributes=attributes)
    directory.names[name] = node


def zip_tree(path):
    """The tree of a zip file."""
    archive = zipfile.ZipFile(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    root = vfsd.Tree()
    for info in archive.infolist():
        mode = info.external_attr >> 16
        attributes = vfsd.Attributes(
            size=0 if info.is_dir() else info.file_size, permissions=stat.S_IMODE(mode) or None,
            modified=calendar.timegm(info.date_time + (0, 0, 0)))
        if info.is_dir():
            node = None
        elif stat.S_ISLNK(mode):
            node = Link(os.fsdecode(archive.read(info)))
        elif info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
            # The local header, of 30 bytes, repeats the name and may have other extra fields than the directory.
            header = os.pread(descriptor, 30, info.header_offset)
            name, extra = struct.unpack_from("<HH", header, 26)
            node = Stored(descriptor, info.header_offset + 30 + name + extra, attributes)
        else:
            node = Packed(lambda info=info: archive.open(info), threading.Lock(), attributes)
        add(root, info.filename, node, attributes)
    return root


def tar_tree(path):
    """The tree of a tar file, compressed or not."""
    archive = tarfile.open(path)
    try:
        tarfile.open(path, "r:").close()
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except tarfile.ReadError:
        descriptor = None
    root, lock = vfsd.Tree(), threading.Lock()
    for info in archive:
        attributes = vfsd.Attributes(
            size=info.size, permissions=info.mode & 0o7777, uid=info.uid, gid=info.gid, modified=info.mtime)
        if info.isdir():
            node = None
        elif info.issym():
            node = Link(info.linkname)
        elif info.islnk():
            node = find(root, info.linkname)
            if node is None:
                continue
        elif info.isreg() and descriptor is not None and not info.issparse():
            node = Stored(descriptor, info.offset_data, attributes)
        elif info.isreg():
            node = Packed(lambda info=info: archive.extractfile(info), lock, attributes)
        else:
            continue
        add(root, info.name, node, attributes)
    return root


def tree(path):
    """The tree of an archive of either kind."""
    return zip_tree(path) if zipfile.is_zipfile(path) else tar_tree(path)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: archive.py FILE [--socket PATH]")
    vfsd.serve(tree(sys.argv[1]), immutable=True)
