"""Work that is timed from cold caches. Cold means that the kernel has forgotten every clean page, dentry and inode."""

import os
import random
import time

LIBRARY = os.path.dirname(os.__file__)
BLOCK = 4096
MIB = 1 << 20
SMALL_FILES = 1000


def forget():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


def timed(row, work):
    begin = time.monotonic()
    work()
    print(f"figure {row} {time.monotonic() - begin:.9g}", flush=True)


def cold(row, work):
    forget()
    timed(row, work)


def names_below(top):
    return [os.path.join(folder, name) for folder, _, names in os.walk(top) for name in names]


def write_random(name, mib):
    some = random.Random(4)
    file = os.open(name, os.O_CREAT | os.O_WRONLY, 0o644)
    for _ in range(mib):
        os.write(file, some.randbytes(MIB))
    os.fsync(file)
    os.close(file)


