"""What programs do in a volume whose data lie in a bucket. Arguments: what to do, and where the volume is mounted.

It follows `cold.py`. The file system's own cache stays as it is when the kernel forgets.
"""

import random
import shutil
import sys

BIG_MIB = 256


def read_all(names):
    for name in names:
        if os.path.islink(name):
            continue
        with open(name, "rb", buffering=0) as file:
            while file.read(MIB):
                pass


def write_file(name, content, sync):
    file = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    os.write(file, content)
    if sync:
        os.fsync(file)
    os.close(file)


def write_small():
    content = random.Random(1).randbytes(BLOCK)
    for number in range(SMALL_FILES):
        write_file(f"small/{number:04}", content, False)


def write_small_synced():
    content = random.Random(2).randbytes(BLOCK)
    for number in range(100):
        write_file(f"synced/{number:04}", content, True)


def append_synced():
    content = random.Random(3).randbytes(BLOCK)
    file = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    for _ in range(100):
        os.write(file, content)
        os.fsync(file)
    os.close(file)


def write_big():
    write_random("big", BIG_MIB)


def read_at_random():
    places = random.Random(7)
    file = os.open("big", os.O_RDONLY)
    for _ in range(2000):
        os.pread(file, BLOCK, places.randrange(BIG_MIB * MIB // BLOCK) * BLOCK)
    os.close(file)


def copy_library():
    ignored = shutil.ignore_patterns("__pycache__", "site-packages", "dist-packages", "test")
    shutil.copytree(LIBRARY, "library", symlinks=True, ignore=ignored)


def copy_library_and_sync():
    copy_library()
    file = os.open("library", os.O_RDONLY)
    os.fsync(file)
    os.close(file)
    os.sync()


def rename_small():
    for number in range(SMALL_FILES):
        os.rename(f"small/{number:04}", f"small/{number:04}.new")


def delete_small():
    for number in range(SMALL_FILES):
        os.unlink(f"small/{number:04}.new")


def work():
    os.mkdir("small")
    os.mkdir("synced")
    cold("create", write_small)
    cold("look", lambda: [os.lstat(name) for name in names_below("small")])
    cold("read", lambda: read_all(names_below("small")))
    cold("rename", rename_small)
    cold("delete", delete_small)
    cold("create-synced", write_small_synced)
    cold("append-synced", append_synced)
    cold("write", write_big)
    cold("sequential", lambda: read_all(["big"]))
    cold("random", read_at_random)
    cold("copy", copy_library_and_sync)
    cold("walk", lambda: [os.lstat(name) for name in names_below("library")])


def elsewhere():
    timed("elsewhere-walk", lambda: [os.lstat(name) for name in names_below("library")])
    timed("elsewhere-read", lambda: read_all(names_below("library")))
    timed("elsewhere-random", read_at_random)
    timed("elsewhere-sequential", lambda: read_all(["big"]))


os.chdir(sys.argv[2])
{"work": work, "elsewhere": elsewhere}[sys.argv[1]]()
