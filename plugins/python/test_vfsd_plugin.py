"""Tests of vfsd_plugin: with pytest, or by running this file."""

import errno
import os
import socket
import struct
import sys
import tempfile
import threading
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import vfsd_plugin as vfsd  # noqa: E402  pylint: disable=wrong-import-position


class Text(vfsd.File):
    def __init__(self, content):
        self.content = bytearray(content)

    def attributes(self):
        return vfsd.Attributes(size=len(self.content), permissions=0o644, modified=1.5)

    def read(self, offset, size):
        return bytes(self.content[offset:offset + size])

    def write(self, offset, data):
        end = offset + len(data)
        self.content.extend(bytes(max(0, end - len(self.content))))
        self.content[offset:end] = data
        return len(data)

    def change(self, changes):
        if changes.size is not None:
            self.content = self.content[:changes.size].ljust(changes.size, b"\0")

    def xattrs(self):
        return {"user.colour": b"green"}


class Link(vfsd.Symlink):
    def target(self):
        return "hello"


class Bucket(vfsd.Tree):
    def create(self, name, permissions, uid, gid):
        if name in self.names:
            raise OSError(errno.EEXIST, "there")
        self.names[name] = Text(b"")
        return self.names[name]

    def mkdir(self, name, permissions, uid, gid):
        self.names[name] = Bucket()
        return self.names[name]

    def unlink(self, name):
        if self.names.pop(name, None) is None:
            raise OSError(errno.ENOENT, "not there")

    def rename(self, name, new_parent, new_name):
        new_parent.names[new_name] = self.names.pop(name)


class Broken(vfsd.File):
    def read(self, offset, size):
        raise ValueError("on purpose")


class Host:
    """A host that asks one thing after the other."""

    def __init__(self, root, descriptors=16, area=None, **options):
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(20)
        self.thread = threading.Thread(target=self.serve, args=(theirs, root, options), daemon=True)
        self.thread.start()
        self.socket.sendall(struct.pack(
            "=8sIIIIIII28x", b"vfsdplug", 1, 64, int(descriptors > 0) | (2 if area else 0), 1 << 20, 64, descriptors,
            os.fstat(area).st_size if area else 0))
        hello = struct.unpack("=8sIIIII36x", self.exactly(64))
        assert hello[:3] == (b"vfsdplug", 1, 64) and hello[5] >= 1
        self.capabilities = hello[4]
        self.unique = 0
        self.descriptors = {}
        flags = (1 << 30) | (1 << 13) | (1 << 5)
        reply = self.ask(26, 0, struct.pack("=IIII48x", 7, 45, 0, flags), [area] if area else [])
        assert len(reply) == 64 and struct.unpack_from("=II", reply) == (7, 45)

    @staticmethod
    def serve(theirs, root, options):
        with theirs:
            vfsd.serve_connection(theirs, root, **options)

    def exactly(self, size):
        data = b""
        while len(data) < size:
            part, descriptors, _, _ = socket.recv_fds(self.socket, size - len(data), 4)
            assert part, "the plugin has left"
            self.pending = descriptors or getattr(self, "pending", [])
            data += part
        return data

    def ask(self, opcode, node, body=b"", descriptors=()):
        self.unique += 2
        header = struct.pack("=IIQQIIIHH", 40 + len(body), opcode, self.unique, node, 0, 0, 1, 0, 0)
        sent = socket.send_fds(self.socket, [header + body], descriptors) if descriptors else 0
        self.socket.sendall((header + body)[sent:])
        while True:
            length, error, unique = struct.unpack("=IiQ", self.exactly(16))
            reply = self.exactly(length - 16)
            if unique == 0:
                number, _ = struct.unpack("=II", reply)
                if error == 2:
                    assert number not in self.descriptors
                    self.descriptors[number] = self.pending.pop()
                else:
                    os.close(self.descriptors.pop(number))
                continue
            assert unique == self.unique
            if error == 1:
                number, size, offset = struct.unpack("=IIQ", reply)
                return os.pread(self.descriptors[number], size, offset)
            if error:
                assert not reply
                raise OSError(-error, os.strerror(-error))
            return reply

    def lookup(self, parent, name):
        reply = self.ask(1, parent, os.fsencode(name) + b"\0")
        assert len(reply) == 128
        return struct.unpack_from("=Q", reply)[0]

    def open(self, node, flags=0):
        return struct.unpack("=QIi", self.ask(14, node, struct.pack("=II", flags, 0)))

    def read(self, node, offset=0, size=1 << 20):
        return self.ask(15, node, struct.pack("=QQIIQII", 0, offset, size, 0, 0, 0, 0))

    def list(self, node, plus=False, size=4096):
        handle = struct.unpack_from("=Q", self.ask(27, node, bytes(8)))[0]
        names, cookie = [], 0
        while True:
            reply = self.ask(44 if plus else 28, node, struct.pack("=QQIIQII", handle, cookie, size, 0, 0, 0, 0))
            if not reply:
                self.ask(29, node, struct.pack("=QIIQ", handle, 0, 0, 0))
                return names
            at = 0
            while at < len(reply):
                start = at + (128 if plus else 0)
                inode, cookie, length, kind = struct.unpack_from("=QQII", reply, start)
                names.append((os.fsdecode(reply[start + 24:start + 24 + length]), inode, kind))
                at = (start + 24 + length + 7) // 8 * 8

    def close(self):
        self.socket.close()
        self.thread.join(20)
        assert not self.thread.is_alive()


def refused(number, call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        assert error.errno == number, error
    else:
        raise AssertionError("not refused")


def tree():
    return Bucket({"hello": Text(b"hello\n"), "link": Link(), "dir": Bucket({"inner": Text(b"x")}), "bad": Broken()})


def test_names_lead_to_files_that_can_be_read():
    host = Host(tree())
    hello = host.lookup(1, "hello")
    assert host.lookup(1, "hello") == hello
    host.open(hello)
    assert host.read(hello) == b"hello\n"
    assert host.read(hello, 1, 2) == b"el"
    assert host.read(hello, 100) == b""
    assert host.ask(5, host.lookup(1, "link")) == b"hello"
    assert host.read(host.lookup(host.lookup(1, "dir"), "inner")) == b"x"
    refused(errno.ENOENT, host.lookup, 1, "nothing")
    refused(errno.ENOTDIR, host.lookup, hello, "name")
    host.close()


def test_listings_are_whole_however_small_the_pieces_are():
    host = Host(Bucket({f"file{number:03}": Text(b"") for number in range(100)}))
    wanted = [".", ".."] + [f"file{number:03}" for number in range(100)]
    for plus in (False, True):
        for size in (200, 4096, 32768):
            listed = host.list(1, plus, size)
            assert [name for name, _, _ in listed] == wanted
            assert len({inode for _, inode, _ in listed}) == 101
    host.close()


def test_inode_numbers_come_from_the_path_and_stay():
    first, second = Host(tree()), Host(tree())
    assert first.list(1) == second.list(1)
    first.close()
    second.close()


def test_files_are_made_written_moved_and_removed():
    root = tree()
    host = Host(root)
    reply = host.ask(35, 1, struct.pack("=IIII", os.O_RDWR, 0o100644, 0, 0) + b"new\0")
    assert len(reply) == 144
    new = struct.unpack_from("=Q", reply)[0]
    written = host.ask(16, new, struct.pack("=QQIIQII", 0, 3, 4, 0, 0, 0, 0) + b"data")
    assert struct.unpack("=II", written)[0] == 4
    assert host.read(new) == b"\0\0\0data"
    valid_size = struct.pack("=II6Q8I", 8, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert struct.unpack_from("=Q", host.ask(4, new, valid_size), 24)[0] == 2
    directory = host.lookup(1, "dir")
    host.ask(12, 1, struct.pack("=Q", directory) + b"new\0moved\0")
    assert set(root.names["dir"].names) == {"inner", "moved"}
    host.ask(10, directory, b"moved\0")
    refused(errno.ENOENT, host.ask, 10, directory, b"moved\0")
    refused(errno.EROFS, host.ask, 11, 1, b"dir\0")
    host.close()


def test_data_of_writes_are_read_from_shared_memory():
    with tempfile.TemporaryFile() as area:
        area.truncate(1 << 20)
        host = Host(tree(), area=area.fileno())
        hello = host.lookup(1, "hello")
        os.pwrite(area.fileno(), b"shared", 70_000)
        argument = struct.pack("=QQIIQII", 0, 6, 6, 1 << 31, 0, 0, 0) + struct.pack("=Q", 70_000)
        assert struct.unpack("=II", host.ask(16, hello, argument))[0] == 6
        os.pwrite(area.fileno(), b"others", 70_000)
        assert host.read(hello) == b"hello\nshared"
        sent = host.ask(16, hello, struct.pack("=QQIIQII", 0, 0, 5, 0, 0, 0, 0) + b"HELLO")
        assert struct.unpack("=II", sent)[0] == 5
        assert host.read(hello) == b"HELLO\nshared"
        host.close()


def test_what_is_not_there_is_said_so():
    host = Host(tree())
    refused(errno.ENOSYS, host.ask, 999, 1)
    refused(errno.ENOSYS, host.ask, 52, 1, bytes(24))
    refused(errno.ESTALE, host.lookup, 77, "hello")
    # A mistake in the plugin is EIO, with a traceback for its author.
    stderr, sys.stderr = sys.stderr, open(os.devnull, "w", encoding="utf-8")
    try:
        refused(errno.EIO, host.read, host.lookup(1, "bad"))
    finally:
        sys.stderr.close()
        sys.stderr = stderr
    host.close()


def test_forgotten_files_have_no_number_any_more():
    host = Host(tree())
    hello = host.lookup(1, "hello")
    host.lookup(1, "hello")
    forget = struct.pack("=IIQQIIIHH", 48, 2, 0, hello, 0, 0, 0, 0, 0)
    host.socket.sendall(forget + struct.pack("=Q", 1))
    assert host.read(hello) == b"hello\n"
    host.socket.sendall(forget + struct.pack("=Q", 1))
    refused(errno.ESTALE, host.read, hello)
    host.close()


def test_extended_attributes():
    host = Host(tree(), xattr=True)
    assert host.capabilities == 1
    hello = host.lookup(1, "hello")
    assert host.ask(22, hello, struct.pack("=II", 100, 0) + b"user.colour\0") == b"green"
    assert host.ask(22, hello, struct.pack("=II", 0, 0) + b"user.colour\0") == struct.pack("=II", 5, 0)
    assert host.ask(23, hello, struct.pack("=II", 100, 0)) == b"user.colour\0"
    refused(errno.ERANGE, host.ask, 23, hello, struct.pack("=II", 3, 0))
    refused(errno.ENODATA, host.ask, 22, hello, struct.pack("=II", 9, 0) + b"user.x\0")
    host.close()


class Range(vfsd.File):
    def __init__(self, descriptor):
        self.descriptor = descriptor

    def read(self, offset, size):
        return vfsd.FileRange(self.descriptor, 10 + offset, size)


def test_data_in_a_file_are_read_there():
    content = os.urandom(100_000)
    for folder in (None, "/var/tmp", "/dev/shm"):
        if folder is not None and not os.path.isdir(folder):
            continue
        with tempfile.TemporaryFile(dir=folder) as unnamed, tempfile.NamedTemporaryFile(dir=folder) as named:
            files = {}
            for index, file in enumerate((unnamed, named)):
                file.write(content)
                file.flush()
                files[str(index)] = Range(file.fileno())
            for descriptors in (0, 1):
                host = Host(vfsd.Tree(files), descriptors)
                for _ in range(2):
                    for name in files:
                        node = host.lookup(1, name)
                        assert host.read(node) == content[10:]
                        assert host.read(node, 50_000, 20_000) == content[50_010:70_010]
                        assert host.read(node, 99_985) == content[99_995:]
                host.close()


def main(tests):
    """Runs all tests without pytest."""
    failed = 0
    for name, test in sorted(tests.items()):
        if name.startswith("test_") and callable(test):
            try:
                test()
                print(f"{name}: ok", flush=True)
            except Exception:  # pylint: disable=broad-except
                failed += 1
                traceback.print_exc()
                print(f"{name}: FAILED", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(globals())
