"""10,000 files in one folder: made, looked at, removed, each from cold caches."""

import os
import sys
import time

sys.path.insert(0, "/vfsd")
from timed import figure, settle

FILES = 10_000


def create(name):
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


os.mkdir("files")
os.chdir("files")
names = [f"file-{number:05}" for number in range(FILES)]
for row, call in ("create", create), ("stat", os.stat), ("unlink", os.unlink):
    settle(True)
    begin = time.monotonic()
    for name in names:
        call(name)
    figure(row, time.monotonic() - begin)
