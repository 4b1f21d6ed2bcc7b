"""File systems for vfsd in Python: one file, no dependencies, Python 3.9 or newer.

A file system is a tree of objects. Each is a :class:`Directory`, a :class:`File` or a :class:`Symlink`; what is
not overridden answers "read-only" or "not supported"::

    import vfsd_plugin as vfsd

    class Hello(vfsd.File):
        def attributes(self):
            return vfsd.Attributes(size=6)

        def read(self, offset, size):
            return b"hello\\n"[offset:offset + size]

    vfsd.serve(vfsd.Tree({"hello.txt": Hello()}))

``vfsd mount plugin:exec:hello.py /mnt`` starts the program and mounts the tree; ``vfsd serve`` gives it to a VM.
Run by hand with ``--socket PATH`` it listens there, for ``plugin:PATH``.

Methods are called from several threads. One that fails raises :class:`OSError` with an errno, which is what the
program in the guest sees; any other exception is EIO, with a traceback on standard error. The protocol is described
in ``plugins/protocol/PROTOCOL.md``.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import fcntl
import hashlib
import mmap
import os
import socket
import stat
import struct
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Dict, Iterable, List, Mapping, Optional, Tuple, Union

__all__ = [
    "Attributes", "Changes", "Directory", "File", "FileRange", "Node", "Symlink", "Tree", "serve", "serve_connection",
]


# What a file system is made of.


@dataclasses.dataclass(frozen=True)
class Attributes:
    """What stat(2) tells of a file. The type is that of the object; times are seconds since 1970."""

    size: int = 0
    permissions: Optional[int] = None
    """Permission, set-id and sticky bits; without it 0o444 for files, 0o555 for directories."""
    uid: int = 0
    gid: int = 0
    links: int = 1
    modified: float = 0.0
    accessed: Optional[float] = None
    """Without it, the time of modification; so for the next."""
    changed: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Changes:
    """What is to be changed of a file's attributes. ``None`` leaves one alone; times are seconds since 1970."""

    size: Optional[int] = None
    permissions: Optional[int] = None
    uid: Optional[int] = None
    gid: Optional[int] = None
    accessed: Optional[float] = None
    modified: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class FileRange:
    """Data that are in a file of this host: vfsd reads them from there, straight into the guest's memory.

    ``descriptor`` stays open for as long as the file system is served. What the protocol does not allow to be handed over
    (a pipe, a file on a network) is read and sent.
    """

    descriptor: int
    offset: int
    length: int


Data = Union[bytes, bytearray, memoryview, FileRange]


class Node:
    """A file of any type."""

    inode: Optional[int] = None
    """The inode number, from 2 on, if the file has one of its own. It has to be the same after a restart, and two nodes
    with one number are the same file. Without it, the number comes from the path."""

    def attributes(self) -> Attributes:
        """What stat(2) tells."""
        return Attributes()

    def change(self, changes: Changes) -> None:
        """chmod(2), chown(2), truncate(2), utimensat(2): all of it or nothing."""
        raise OSError(errno.EROFS, "read-only")

    def xattrs(self) -> Mapping[str, bytes]:
        """Extended attributes, if the file system is served with ``xattr=True``."""
        return {}


class Directory(Node):
    """A directory."""

    def lookup(self, name: str) -> Optional[Node]:
        """What has the name, or ``None``. Names that are no UTF-8 come as :func:`os.fsdecode` gives them."""
        return dict(self.entries()).get(name)

    def entries(self) -> Iterable[Tuple[str, Node]]:
        """All names with what they lead to, without ``.`` and ``..``, in an order that stays while nothing changes."""
        raise OSError(errno.EOPNOTSUPP, "not supported")

    def create(self, name: str, permissions: int, uid: int, gid: int) -> "File":
        """Makes an empty regular file. EEXIST if the name is there."""
        raise OSError(errno.EROFS, "read-only")

    def mkdir(self, name: str, permissions: int, uid: int, gid: int) -> "Directory":
        """Makes a directory."""
        raise OSError(errno.EROFS, "read-only")

    def symlink(self, name: str, target: str, uid: int, gid: int) -> "Symlink":
        """Makes a symbolic link."""
        raise OSError(errno.EROFS, "read-only")

    def unlink(self, name: str) -> None:
        """Removes a name that is not a directory's."""
        raise OSError(errno.EROFS, "read-only")

    def rmdir(self, name: str) -> None:
        """Removes an empty directory."""
        raise OSError(errno.EROFS, "read-only")

    def rename(self, name: str, new_parent: "Directory", new_name: str) -> None:
        """Moves a name, over the file that has the new one if there is one."""
        raise OSError(errno.EROFS, "read-only")


class File(Node):
    """A regular file."""

    keep_cache = False
    """The content never changes: what the guest has cached of it is right."""
    direct = False
    """Nothing is cached, and reads come here whatever the size says, as for files of ``/proc``."""

    def read(self, offset: int, size: int) -> Data:
        """Up to ``size`` bytes from ``offset`` on; fewer only at the end of the file."""
        raise OSError(errno.EOPNOTSUPP, "not supported")

    def write(self, offset: int, data: bytes) -> int:
        """Writes, and says how many bytes that were."""
        raise OSError(errno.EROFS, "read-only")

    def fsync(self) -> None:
        """Makes durable what was written."""


class Symlink(Node):
    """A symbolic link."""

    def target(self) -> str:
        """Where it leads."""
        raise NotImplementedError


class Tree(Directory):
    """A directory that is what a dictionary says. It may be changed while it is served."""

    def __init__(self, names: Optional[Dict[str, Node]] = None, attributes: Optional[Attributes] = None) -> None:
        self.names: Dict[str, Node] = {} if names is None else names
        self._attributes = attributes or Attributes()

    def attributes(self) -> Attributes:
        return self._attributes

    def lookup(self, name: str) -> Optional[Node]:
        return self.names.get(name)

    def entries(self) -> Iterable[Tuple[str, Node]]:
        return sorted(self.names.items())


# The protocol.

_MAGIC = b"vfsdplug"
_VERSION = 1
_HOST_HELLO = struct.Struct("=8sIIIIIII28x")
_PLUGIN_HELLO = struct.Struct("=8sIIIII36x")
_DESCRIPTORS, _AREA = 1, 2
_WRITE_AREA = 1 << 31
_EXTENT, _DESCRIPTOR_PUT, _DESCRIPTOR_DROP = 1, 2, 3
_XATTR, _IMMUTABLE = 1 << 0, 1 << 8
_IN_FLIGHT = 256
_MAX_MESSAGE = (1 << 20) + (132 << 10)

# include/uapi/linux/fuse.h
_IN_HEADER = struct.Struct("=IIQQIIIHH")
_OUT_HEADER = struct.Struct("=IiQ")
_ATTR = struct.Struct("=QQQQQQIIIIIIIIII")
_ENTRY = struct.Struct("=QQQQII")
_ATTR_OUT = struct.Struct("=QII")
_OPEN_OUT = struct.Struct("=QIi")
_STATFS = struct.Struct("=QQQQQIIII24x")
_READ_IN = struct.Struct("=QQIIQII")
_SETATTR_IN = struct.Struct("=II6Q8I")
_INIT_OUT = struct.Struct("=IIIIHHIIHHIIH22x")
_DIRENT = struct.Struct("=QQII")
_PAIR = struct.Struct("=II")
_FOUR = struct.Struct("=IIII")
_QUAD = struct.Struct("=Q")
_EXTENT_OUT = struct.Struct("=IIQ")

_ROOT = 1
_POLICY = (1 << 64) - 1
_FLAGS = (1 << 5) | (1 << 13) | (1 << 22) | (1 << 30) | (1 << 40)
"""BIG_WRITES, DO_READDIRPLUS, MAX_PAGES, INIT_EXT, ALLOW_IDMAP."""

_WORTH_IT = 16 << 10
"""Shorter data are sent rather than handed over."""
_OWN_FILE_SYSTEMS = {"ext2", "ext3", "ext4", "xfs", "tmpfs", "f2fs", "erofs", "squashfs"}


class _Descriptors:
    """The descriptors that the host has, by number. The one used longest ago makes room for the next."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # Device and inode number, in the order of use; the descriptors are held open, so that the numbers stay theirs.
        self.held: Dict[Tuple[int, int], Tuple[int, int]] = {}

    def fits(self, descriptor: int, status: os.stat_result) -> bool:
        """Whether the host takes it."""
        if self.limit == 0 or not stat.S_ISREG(status.st_mode) or status.st_nlink == 0:
            return self.limit != 0 and stat.S_ISREG(status.st_mode) and _is_sealed(descriptor)
        return _file_system(status.st_dev) in _OWN_FILE_SYSTEMS


def _is_sealed(descriptor: int) -> bool:
    try:
        is_memfd = os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:")
        return is_memfd and bool(fcntl.fcntl(descriptor, getattr(fcntl, "F_GET_SEALS", 1034)) & 2)
    except OSError:
        return False


def _file_system(device: int) -> Optional[str]:
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            words = line.split()
            if words[2] == wanted:
                return words[words.index("-") + 1]
    return None


@dataclasses.dataclass
class _Known:
    """A node that the host knows by a number."""

    number: int
    node: Node
    inode: int
    path: bytes
    parent: int
    lookups: int = 0


class _Session:
    """One connection to vfsd."""

    def __init__(self, connection: socket.socket, root: Node, xattr: bool, immutable: bool, threads: int) -> None:
        self.connection = connection
        self.xattr = xattr
        self.immutable = immutable
        self.sending = threading.Lock()
        self.lock = threading.Lock()
        self.known: Dict[int, _Known] = {_ROOT: _Known(_ROOT, root, root.inode or 1, b"", _ROOT, 1)}
        self.by_inode: Dict[int, int] = {self.known[_ROOT].inode: _ROOT}
        self.listings: Dict[int, List[Tuple[bytes, Node]]] = {}
        self.last_number = _ROOT
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="plugin")
        self.descriptors = _Descriptors(0)
        self.area: Optional[mmap.mmap] = None

    # Messages.

    def run(self) -> None:
        magic, version, size, features, _, in_flight, descriptors, area = (
            _HOST_HELLO.unpack(self.exactly(_HOST_HELLO.size)))
        if magic != _MAGIC or version < _VERSION or size != _HOST_HELLO.size:
            raise ConnectionError("what is at the other end of the socket is not vfsd, or an older one")
        if features & _DESCRIPTORS:
            self.descriptors.limit = min(descriptors, 64)
        capabilities = (_XATTR if self.xattr else 0) | (_IMMUTABLE if self.immutable else 0)
        hello = _PLUGIN_HELLO.pack(
            _MAGIC, _VERSION, _PLUGIN_HELLO.size, features & (_DESCRIPTORS | _AREA), capabilities,
            min(in_flight, _IN_FLIGHT))
        self.send(hello)
        try:
            header = self.first_header(area if features & _AREA else 0)
            while True:
                if not header:
                    return
                length, opcode, unique, node, uid, gid, _, _, _ = _IN_HEADER.unpack(header)
                if not _IN_HEADER.size <= length <= _MAX_MESSAGE:
                    raise ConnectionError(f"a request of {length} bytes")
                body = self.exactly(length - _IN_HEADER.size)
                if opcode in _SILENT:
                    _SILENT[opcode](self, node, body)
                else:
                    self.pool.submit(self.answer, opcode, unique, node, uid, gid, body)
                header = self.receive(_IN_HEADER.size)
        finally:
            self.pool.shutdown(wait=True)
            if self.area is not None:
                self.area.close()
            for _, descriptor in self.descriptors.held.values():
                os.close(descriptor)

    def first_header(self, area: int) -> bytes:
        """The header of the first request, with which the area comes, if there is one."""
        if area == 0:
            return self.receive(_IN_HEADER.size)
        header, descriptors, _, _ = socket.recv_fds(self.connection, _IN_HEADER.size, 1)
        if not header:
            return b""
        if not descriptors:
            raise ConnectionError("the memory for data of writes does not come")
        self.area = mmap.mmap(descriptors[0], area, mmap.MAP_SHARED, mmap.PROT_READ)
        os.close(descriptors[0])
        return header + self.exactly(_IN_HEADER.size - len(header))

    def receive(self, size: int) -> bytes:
        """That many bytes, or none at the end."""
        parts: List[bytes] = []
        while size:
            part = self.connection.recv(min(size, 1 << 20))
            if not part:
                if parts:
                    raise ConnectionError("the connection ended in the middle of a message")
                return b""
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def exactly(self, size: int) -> bytes:
        data = self.receive(size)
        if len(data) != size:
            raise ConnectionError("the connection ended in the middle of a message")
        return data

    def send(self, *parts: bytes) -> None:
        with self.sending:
            self.connection.sendall(b"".join(parts))

    def answer(self, opcode: int, unique: int, node: int, uid: int, gid: int, body: bytes) -> None:
        """Serves one request. Runs in a thread of the pool."""
        try:
            handler = _HANDLERS.get(opcode)
            if handler is None:
                raise OSError(errno.ENOSYS, "unknown")
            result = handler(self, self.get(node) if opcode != 26 else None, body, uid, gid)
            error = 0
        except OSError as failure:
            result, error = b"", -(failure.errno or errno.EIO)
        except Exception:  # pylint: disable=broad-except
            traceback.print_exc()
            result, error = b"", -errno.EIO
        if not -511 <= error <= 0:
            error = -errno.EIO
        try:
            if isinstance(result, FileRange):
                self.reply_range(unique, result)
            else:
                self.send(_OUT_HEADER.pack(_OUT_HEADER.size + len(result), error, unique), result)
        except OSError:
            # The reader finds that vfsd is gone.
            pass

    def reply_range(self, unique: int, data: FileRange) -> None:
        status = os.fstat(data.descriptor)
        length = max(0, min(data.length, status.st_size - data.offset))
        if length < _WORTH_IT or not self.descriptors.fits(data.descriptor, status):
            content = os.pread(data.descriptor, length, data.offset)
            self.send(_OUT_HEADER.pack(_OUT_HEADER.size + len(content), 0, unique), content)
            return
        body = _EXTENT_OUT.size
        with self.sending:
            number = self.number_of(data.descriptor, (status.st_dev, status.st_ino))
            self.connection.sendall(
                _OUT_HEADER.pack(_OUT_HEADER.size + body, _EXTENT, unique) + _EXTENT_OUT.pack(number, length, data.offset))

    def number_of(self, descriptor: int, key: Tuple[int, int]) -> int:
        """The host's number of a descriptor, which it is given if need be. Called while nobody else sends."""
        held = self.descriptors.held
        if key in held:
            held[key] = held.pop(key)
            return held[key][0]
        number = len(held)
        if number >= self.descriptors.limit:
            number, old = held.pop(next(iter(held)))
            os.close(old)
            self.connection.sendall(_OUT_HEADER.pack(24, _DESCRIPTOR_DROP, 0) + _PAIR.pack(number, 0))
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        held[key] = (number, own)
        message = _OUT_HEADER.pack(24, _DESCRIPTOR_PUT, 0) + _PAIR.pack(number, 0)
        sent = socket.send_fds(self.connection, [message], [own])
        self.connection.sendall(message[sent:])
        return number

    # Nodes.

    def get(self, number: int) -> _Known:
        with self.lock:
            known = self.known.get(number)
        if known is None:
            raise OSError(errno.ESTALE, "forgotten")
        return known

    def directory(self, known: _Known) -> Directory:
        if not isinstance(known.node, Directory):
            raise OSError(errno.ENOTDIR, "not a directory")
        return known.node

    def file(self, known: _Known) -> File:
        if not isinstance(known.node, File):
            raise OSError(errno.EISDIR if isinstance(known.node, Directory) else errno.EINVAL, "not a file")
        return known.node

    def inode_of(self, parent: _Known, name: bytes, node: Node) -> int:
        if node.inode is not None:
            return node.inode
        digest = hashlib.blake2b(parent.path + b"/" + name, digest_size=8).digest()
        # Not 0 or the root's, nor negative to anybody.
        return max(2, int.from_bytes(digest, "big") >> 1)

    def entry(self, parent: _Known, name: bytes, node: Node) -> bytes:
        """The entry of a node that the host is told of, which counts."""
        attributes = node.attributes()
        inode = self.inode_of(parent, name, node)
        with self.lock:
            number = self.by_inode.get(inode)
            if number is None or type(self.known[number].node) is not type(node):
                self.last_number += 1
                number = self.last_number
                self.known[number] = _Known(number, node, inode, parent.path + b"/" + name, parent.number)
                self.by_inode[inode] = number
            known = self.known[number]
            known.node, known.lookups = node, known.lookups + 1
        return _ENTRY.pack(number, 0, _POLICY, _POLICY, 0, 0) + self.attr(node, inode, attributes)

    def attr(self, node: Node, inode: int, attributes: Attributes) -> bytes:
        if isinstance(node, Directory):
            kind, default = stat.S_IFDIR, 0o555
        elif isinstance(node, Symlink):
            kind, default = stat.S_IFLNK, 0o777
        else:
            kind, default = stat.S_IFREG, 0o444
        permissions = default if attributes.permissions is None else attributes.permissions
        times = []
        for time in (attributes.accessed, attributes.modified, attributes.changed):
            nanoseconds = int((attributes.modified if time is None else time) * 1_000_000_000)
            times.append((nanoseconds // 1_000_000_000, nanoseconds % 1_000_000_000))
        return _ATTR.pack(
            inode, attributes.size, (attributes.size + 511) // 512, *(seconds & _POLICY for seconds, _ in times),
            *(nanoseconds for _, nanoseconds in times), kind | (permissions & 0o7777), attributes.links, attributes.uid,
            attributes.gid, 0, 4096, 0)

    def forget_one(self, number: int, count: int) -> None:
        with self.lock:
            known = self.known.get(number)
            if known is None or number == _ROOT:
                return
            known.lookups -= count
            if known.lookups <= 0:
                del self.known[number]
                if self.by_inode.get(known.inode) == number:
                    del self.by_inode[known.inode]

    # Requests.

    def forget(self, node: int, body: bytes) -> None:
        self.forget_one(node, _QUAD.unpack_from(body)[0])

    def batch_forget(self, _: int, body: bytes) -> None:
        count = _PAIR.unpack_from(body)[0]
        for index in range(count):
            number, times = struct.unpack_from("=QQ", body, 8 + 16 * index)
            self.forget_one(number, times)

    def interrupt(self, node: int, body: bytes) -> None:
        """Only waits for locks are interrupted, and there are none."""

    def init(self, _: None, body: bytes, *__: int) -> bytes:
        _, minor, readahead, low = _FOUR.unpack_from(body)
        high = struct.unpack_from("=I", body, 16)[0] if len(body) >= 20 else 0
        flags = _FLAGS & (low | high << 32)
        return _INIT_OUT.pack(
            7, min(minor, 45), readahead, flags & 0xFFFFFFFF, 0xFFFF, 0xC000, 1 << 20, 1, 256, 0, flags >> 32, 0, 0)

    def lookup(self, parent: _Known, body: bytes, *_: int) -> bytes:
        name = _string(body)
        node = self.directory(parent).lookup(os.fsdecode(name))
        if node is None:
            raise OSError(errno.ENOENT, "no such name")
        return self.entry(parent, name, node)

    def getattr(self, known: _Known, body: bytes, *_: int) -> bytes:
        attributes = known.node.attributes()
        return _ATTR_OUT.pack(_POLICY, 0, 0) + self.attr(known.node, known.inode, attributes)

    def setattr(self, known: _Known, body: bytes, *_: int) -> bytes:
        (valid, _, _, size, _, atime, mtime, _, atimensec, mtimensec, _, mode, _, uid, gid, _) = (
            _SETATTR_IN.unpack_from(body))

        def time(bit: int, now: int, seconds: int, nanoseconds: int) -> Optional[float]:
            if valid & now:
                import time as clock
                return clock.time()
            return seconds + nanoseconds / 1e9 if valid & bit else None

        changes = Changes(
            size=size if valid & 8 else None, permissions=mode & 0o7777 if valid & 1 else None,
            uid=uid if valid & 2 else None, gid=gid if valid & 4 else None,
            accessed=time(16, 128, atime, atimensec), modified=time(32, 256, mtime, mtimensec))
        if changes != Changes():
            known.node.change(changes)
        return self.getattr(known, body)

    def readlink(self, known: _Known, *_: object) -> bytes:
        if not isinstance(known.node, Symlink):
            raise OSError(errno.EINVAL, "not a link")
        return os.fsencode(known.node.target())

    def open(self, known: _Known, body: bytes, *_: int) -> bytes:
        node = self.file(known)
        if _PAIR.unpack_from(body)[0] & os.O_TRUNC:
            node.change(Changes(size=0))
        return self.opened(node)

    def opened(self, node: File) -> bytes:
        return _OPEN_OUT.pack(0, 1 if node.direct else 2 if node.keep_cache or self.immutable else 0, 0)

    def read(self, known: _Known, body: bytes, *_: int) -> Data:
        _, offset, size, _, _, _, _ = _READ_IN.unpack_from(body)
        data = self.file(known).read(offset, size)
        if isinstance(data, FileRange):
            return dataclasses.replace(data, length=min(data.length, size))
        return bytes(data[:size])

    def write(self, known: _Known, body: bytes, *_: int) -> bytes:
        _, offset, size, flags, _, _, _ = _READ_IN.unpack_from(body)
        if flags & _WRITE_AREA and self.area is not None:
            start = _QUAD.unpack_from(body, _READ_IN.size)[0]
            data = self.area[start:start + size]
        else:
            data = body[_READ_IN.size:_READ_IN.size + size]
        written = self.file(known).write(offset, data)
        return _PAIR.pack(min(written, size), 0)

    def statfs(self, *_: object) -> bytes:
        return _STATFS.pack(0, 0, 0, 0, 0, 4096, 255, 4096, 0)

    def nothing(self, *_: object) -> bytes:
        return b""

    def fsync(self, known: _Known, *_: object) -> bytes:
        self.file(known).fsync()
        return b""

    def opendir(self, known: _Known, *_: object) -> bytes:
        entries = [(os.fsencode(name), node) for name, node in self.directory(known).entries()]
        with self.lock:
            self.last_number += 1
            handle = self.last_number
            self.listings[handle] = entries
        return _OPEN_OUT.pack(handle, 0, 0)

    def releasedir(self, _: _Known, body: bytes, *__: int) -> bytes:
        with self.lock:
            self.listings.pop(_QUAD.unpack_from(body)[0], None)
        return b""

    def readdir(self, known: _Known, body: bytes, *_: int) -> bytes:
        return self.listing(known, body, plus=False)

    def readdirplus(self, known: _Known, body: bytes, *_: int) -> bytes:
        return self.listing(known, body, plus=True)

    def listing(self, known: _Known, body: bytes, plus: bool) -> bytes:
        handle, offset, size, _, _, _, _ = _READ_IN.unpack_from(body)
        with self.lock:
            entries = self.listings.get(handle)
            up = self.known.get(known.parent, known)
        if entries is None:
            raise OSError(errno.EBADF, "not open")
        result = bytearray()
        # A cookie is the number of entries before it.
        for index in range(offset, len(entries) + 2):
            name, node = ((b".", known.node), (b"..", up.node))[index] if index < 2 else entries[index - 2]
            length = (_ENTRY.size + _ATTR.size if plus else 0) + _DIRENT.size + len(name)
            if len(result) + (length + 7) // 8 * 8 > size:
                break
            if index < 2:
                inode = (known.inode, up.inode)[index]
                head = bytes(_ENTRY.size + _ATTR.size)
            else:
                inode = self.inode_of(known, name, node)
                head = b""
                if plus:
                    try:
                        head = self.entry(known, name, node)
                    except OSError:
                        head = bytes(_ENTRY.size + _ATTR.size)
            kind = 4 if isinstance(node, Directory) else 10 if isinstance(node, Symlink) else 8
            result += head if plus else b""
            result += _DIRENT.pack(inode, index + 1, len(name), kind) + name
            result += bytes(-len(result) % 8)
        return bytes(result)

    def create(self, parent: _Known, body: bytes, uid: int, gid: int) -> bytes:
        _, mode, _, _ = _FOUR.unpack_from(body)
        name = _string(body[_FOUR.size:])
        node = self.directory(parent).create(os.fsdecode(name), mode & 0o7777, uid, gid)
        return self.entry(parent, name, node) + self.opened(node)

    def mknod(self, parent: _Known, body: bytes, uid: int, gid: int) -> bytes:
        mode = _FOUR.unpack_from(body)[0]
        if not stat.S_ISREG(mode):
            raise OSError(errno.EPERM, "only regular files")
        name = _string(body[_FOUR.size:])
        return self.entry(parent, name, self.directory(parent).create(os.fsdecode(name), mode & 0o7777, uid, gid))

    def mkdir(self, parent: _Known, body: bytes, uid: int, gid: int) -> bytes:
        mode = _PAIR.unpack_from(body)[0]
        name = _string(body[_PAIR.size:])
        return self.entry(parent, name, self.directory(parent).mkdir(os.fsdecode(name), mode & 0o7777, uid, gid))

    def symlink(self, parent: _Known, body: bytes, uid: int, gid: int) -> bytes:
        name, target = body.split(b"\0")[:2]
        node = self.directory(parent).symlink(os.fsdecode(name), os.fsdecode(target), uid, gid)
        return self.entry(parent, name, node)

    def unlink(self, parent: _Known, body: bytes, *_: int) -> bytes:
        self.directory(parent).unlink(os.fsdecode(_string(body)))
        return b""

    def rmdir(self, parent: _Known, body: bytes, *_: int) -> bytes:
        self.directory(parent).rmdir(os.fsdecode(_string(body)))
        return b""

    def rename(self, parent: _Known, body: bytes, *_: int) -> bytes:
        new_parent = self.get(_QUAD.unpack_from(body)[0])
        name, new_name = body[_QUAD.size:].split(b"\0")[:2]
        self.directory(parent).rename(os.fsdecode(name), self.directory(new_parent), os.fsdecode(new_name))
        return b""

    def getxattr(self, known: _Known, body: bytes, *_: int) -> bytes:
        value = known.node.xattrs().get(os.fsdecode(_string(body[_PAIR.size:])))
        if value is None:
            raise OSError(errno.ENODATA, "no such attribute")
        return _sized(_PAIR.unpack_from(body)[0], value)

    def listxattr(self, known: _Known, body: bytes, *_: int) -> bytes:
        names = b"".join(os.fsencode(name) + b"\0" for name in known.node.xattrs())
        return _sized(_PAIR.unpack_from(body)[0], names)


def _string(body: bytes) -> bytes:
    return body[:body.index(b"\0")]


def _sized(room: int, value: bytes) -> bytes:
    if room == 0:
        return _PAIR.pack(len(value), 0)
    if len(value) > room:
        raise OSError(errno.ERANGE, "too long")
    return value


_SILENT = {2: _Session.forget, 36: _Session.interrupt, 42: _Session.batch_forget}
_HANDLERS = {
    1: _Session.lookup, 3: _Session.getattr, 4: _Session.setattr, 5: _Session.readlink, 6: _Session.symlink,
    8: _Session.mknod, 9: _Session.mkdir, 10: _Session.unlink, 11: _Session.rmdir, 12: _Session.rename,
    14: _Session.open, 15: _Session.read, 16: _Session.write, 17: _Session.statfs, 18: _Session.nothing,
    20: _Session.fsync, 22: _Session.getxattr, 23: _Session.listxattr, 25: _Session.nothing, 26: _Session.init,
    27: _Session.opendir, 28: _Session.readdir, 29: _Session.releasedir, 35: _Session.create,
    44: _Session.readdirplus,
}


# How it is served.


def serve_connection(
        connection: socket.socket, root: Node, *, xattr: bool = False, immutable: bool = False, threads: int = 8) -> None:
    """Serves a file system to vfsd at the other end of a socket, until it leaves."""
    _Session(connection, root, xattr, immutable, threads).run()


def serve(root: Node, *, xattr: bool = False, immutable: bool = False, threads: int = 8) -> None:
    """Serves a file system until vfsd leaves, or, with ``--socket PATH`` among the arguments, until the program is ended.

    ``xattr``: nodes have extended attributes. ``immutable``: nothing ever changes, so that the guest may remember all
    of it. ``threads``: requests that are served at once.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--socket")
    path = parser.parse_known_args()[0].socket
    if path is None:
        if not stat.S_ISSOCK(os.fstat(0).st_mode):
            sys.exit(
                "this is a plugin of vfsd: let vfsd start it (`vfsd mount plugin:exec:PROGRAM MOUNTPOINT`), or give it"
                " a socket to listen on (`--socket PATH`)")
        with socket.socket(fileno=os.dup(0)) as connection:
            serve_connection(connection, root, xattr=xattr, immutable=immutable, threads=threads)
        return
    with socket.socket(socket.AF_UNIX) as listener:
        if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
        listener.bind(path)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            threading.Thread(
                target=_serve_one, args=(connection, root, xattr, immutable, threads), daemon=True).start()


def _serve_one(connection: socket.socket, root: Node, xattr: bool, immutable: bool, threads: int) -> None:
    with connection:
        try:
            serve_connection(connection, root, xattr=xattr, immutable=immutable, threads=threads)
        except OSError as error:
            print(f"plugin: {error}", file=sys.stderr)
