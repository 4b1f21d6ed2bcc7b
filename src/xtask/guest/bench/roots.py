"""What programs do in a root file system: each row from cold caches, those that only read once more from warm ones.

It follows `cold.py`. What this guest forgets the host has not.
"""

import mmap
import random
import subprocess
import sys

BIG = "/srv/bench/fio/jobs1.0"
READERS = 4


def cold_and_warm(row, work):
    cold(f"{row}-cold", work)
    timed(f"{row}-warm", work)


def look_at_all(top):
    for name in names_below(top):
        os.lstat(name)


def read_whole(name):
    with open(name, "rb", buffering=0) as file:
        while file.read(MIB):
            pass


def read_all(names):
    for name in names:
        if os.path.isfile(name):
            read_whole(name)


def read_at_random():
    places = random.Random(7)
    file = os.open(BIG, os.O_RDONLY)
    blocks = os.fstat(file).st_size // BLOCK
    for _ in range(2000):
        os.pread(file, BLOCK, places.randrange(blocks) * BLOCK)
    os.close(file)


def read_mapped():
    with open(BIG, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for at in range(0, len(mapped), BLOCK):
            mapped[at]


def four_readers():
    names = names_below(LIBRARY)
    children = []
    for reader in range(READERS):
        child = os.fork()
        if child == 0:
            read_all(names[reader::READERS])
            os._exit(0)
        children.append(child)
    for child in children:
        if os.waitpid(child, 0)[1] != 0:
            sys.exit("a reader failed")


def start_python():
    modules = "json, asyncio, sqlite3, http.client, email.message, xml.etree.ElementTree, unittest, logging.config"
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)


cold_and_warm("scan", lambda: look_at_all(LIBRARY))
cold_and_warm("read", lambda: read_all(names_below(LIBRARY)))
cold_and_warm("walk", lambda: look_at_all("/usr"))
cold_and_warm("start", start_python)
cold_and_warm("random", read_at_random)
cold_and_warm("sequential", lambda: read_whole(BIG))
cold_and_warm("mapped", read_mapped)
cold_and_warm("readers", four_readers)

work = "/var/tmp/measured"
os.mkdir(work)
os.chdir(work)
small = [f"file-{number:04}" for number in range(SMALL_FILES)]


def create():
    for name in small:
        with open(name, "wb", buffering=0) as file:
            file.write(b"x" * 1000)


def rename():
    for name in small:
        os.rename(name, name + ".new")


def delete():
    for name in small:
        os.unlink(name + ".new")


def write_synced():
    file = os.open("synced", os.O_CREAT | os.O_WRONLY, 0o644)
    for number in range(100):
        os.pwrite(file, b"y" * BLOCK, number * BLOCK)
        os.fsync(file)
    os.close(file)


def write_big():
    block = random.Random(3).randbytes(MIB)
    with open("big", "wb", buffering=0) as file:
        for _ in range(64):
            file.write(block)


cold("create", create)
cold_and_warm("small", lambda: read_all(small))
cold("rename", rename)
cold("delete", delete)
cold("synced", write_synced)
cold("write", write_big)
for name in ("synced", "big"):
    os.unlink(name)
os.chdir("/")
os.rmdir(work)
