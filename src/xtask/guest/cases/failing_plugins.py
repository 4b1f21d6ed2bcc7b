# /scratch has three exports of one device: kept, a directory in a plugin; lost, memory in a plugin; other, memory of the daemon.
import errno
import os
import sys
import threading
import time

sys.path.insert(0, "/vfsd")
from lib import check, fail, host

PATIENCE = 100
# What a caller may see while a plugin is away; ESTALE when it went before it could say where a file is now.
AWAY = (errno.EIO, errno.ESTALE)


def patiently(what, come):
    begin = time.monotonic()
    while not come():
        check(time.monotonic() - begin < PATIENCE, f"in vain: {what}")
        time.sleep(0.05)


class Load(threading.Thread):
    """Works in a folder until it is over: makes, writes, reads, lists, renames and removes files."""

    def __init__(self, folder, number, may_fail):
        super().__init__(daemon=True)
        self.folder, self.number, self.may_fail = folder, number, may_fail
        self.rounds = self.failures = 0
        self.over = False
        self.wrong = None

    def run(self):
        attempt = 0
        while not self.over and self.wrong is None:
            attempt += 1
            try:
                self.work(f"{self.folder}/{self.number}-{attempt}")
                self.rounds += 1
            except OSError as error:
                self.failures += 1
                if not self.may_fail or error.errno not in AWAY:
                    self.wrong = repr(error)
            except Exception as error:
                self.wrong = repr(error)

    def work(self, path):
        data = bytes([self.number]) * 50_000
        with open(path, "wb", buffering=0) as file:
            written = file.write(data)
            assert written == len(data), written
            os.fsync(file.fileno())
            assert os.fstat(file.fileno()).st_size == len(data)
        os.rename(path, path + "-moved")
        with open(path + "-moved", "rb") as file:
            assert file.read() == data, "other data than were written"
        assert os.path.basename(path) + "-moved" in os.listdir(self.folder)
        os.unlink(path + "-moved")


def attempt(work):
    """The errno of what fails, or None."""
    try:
        work()
        return None
    except OSError as error:
        return error.errno


kept, lost, other = "/scratch/kept", "/scratch/lost", "/scratch/other"
with open(f"{kept}/open", "wb") as file:
    file.write(b"k" * 100_000)
still_open = os.open(f"{kept}/open", os.O_RDWR)
gone = os.open(f"{lost}/gone", os.O_RDWR | os.O_CREAT)
os.write(gone, b"gone")

plugin = [Load(kept, number, True) for number in range(3)]
memory = Load(other, 9, False)
loads = plugin + [memory]
for load in loads:
    load.start()


def right():
    for load in loads:
        check(load.wrong is None, f"{load.folder}: {load.wrong}")
    return True


def rounds():
    return sum(load.rounds for load in plugin)


def works():
    """The plugin serves, and the other export has gone on."""
    before, others = rounds(), memory.rounds
    patiently("the plugin serves", lambda: right() and rounds() > before + 6)
    patiently("the other export goes on", lambda: right() and memory.rounds > others + 2)


works()
for _ in range(3):
    host("plugin-kill", "directory_plugin")
    works()

# One that says nothing is given up after the deadline of what was asked.
failures, others = sum(load.failures for load in plugin), memory.rounds
host("plugin-stop", "directory_plugin")
patiently("the other export goes on", lambda: right() and memory.rounds > others + 20)
patiently("the plugin is given up", lambda: right() and sum(load.failures for load in plugin) > failures)
works()

for load in loads:
    load.over = True
for load in loads:
    load.join(PATIENCE)
    check(not load.is_alive(), f"{load.folder}: hangs")
right()

# What was open all the time is open still.
os.posix_fadvise(still_open, 0, 0, os.POSIX_FADV_DONTNEED)
check(os.pread(still_open, 10, 99_995) == b"k" * 5, "the end of an open file")
check(os.pwrite(still_open, b"new", 0) == 3, "a write to an open file")
os.close(still_open)
with open(f"{kept}/open", "rb") as file:
    check(file.read() == b"new" + b"k" * 99_997, "the content of a file that was open")

# What was in the plugin's memory does not come back.
host("plugin-kill", "memory_plugin")
patiently("what is gone is ESTALE", lambda: attempt(lambda: os.pwrite(gone, b"x", 0)) == errno.ESTALE)
patiently("its name is free", lambda: attempt(lambda: os.stat(f"{lost}/gone")) == errno.ENOENT)
check(attempt(lambda: os.pwrite(gone, b"x", 0)) == errno.ESTALE, "a file that is gone stays so")
check(attempt(lambda: os.close(gone)) == errno.ESTALE, "whoever closes it is told")
with open(f"{lost}/gone", "wb") as file:
    file.write(b"another")
check(os.listdir(lost) == ["gone"], f"a new tree: {os.listdir(lost)}")
