import fcntl
import os
import struct
import sys

sys.path.insert(0, "/vfsd")
from lib import check, host

PATH = "scratch/records"
file = open("records", "w+b")
file.truncate(4096)

# The guest holds a range; the host wants all of the file.
fcntl.lockf(file, fcntl.LOCK_EX, 100, 1000)
host("fcntl-exclusive-refused", PATH)
fcntl.lockf(file, fcntl.LOCK_SH, 100, 1000)
host("fcntl-exclusive-refused", PATH)
host("fcntl-shared-allowed", PATH)
fcntl.lockf(file, fcntl.LOCK_UN)
host("fcntl-exclusive-allowed", PATH)

# The host holds all of it.
host("fcntl-take", PATH)
try:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 5)
    check(False, "the guest got a lock that the host holds")
except OSError as error:
    check(error.errno in (11, 13), f"refused with {error}")
# F_GETLK says that somebody holds it: type, whence, start, length, pid.
query = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 5, 1, 0)
answer = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, query))
check(answer[0] == fcntl.F_WRLCK, f"F_GETLK sees no lock: {answer}")
host("lock-release")
fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 5)

# Closing any descriptor of the file gives up the process's record locks.
os.close(os.open("records", os.O_RDONLY))
host("fcntl-exclusive-allowed", PATH)

# Two processes of the guest exclude each other by ranges.
fcntl.lockf(file, fcntl.LOCK_EX, 10, 0)
child = os.fork()
if child == 0:
    other = open("records", "r+b")
    try:
        fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
        os._exit(1)
    except OSError:
        pass
    fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10)
    os._exit(0)
check(os.waitpid(child, 0)[1] == 0, "ranges do not exclude between processes")
