"""Work that is timed from cold caches. Cold means that the kernel has forgotten every clean page, dentry and inode."""

import os
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


