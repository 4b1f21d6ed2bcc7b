# The guest may open more than the daemon may.
ulimit -n 20000
python3 - <<'PROGRAM'
import errno
import os
import sys

sys.path.insert(0, "/vfsd")
from lib import check

files = []
refusal = None
for n in range(15000):
    try:
        files.append(os.open(f"file-{n}", os.O_RDWR | os.O_CREAT))
    except OSError as error:
        refusal = error
        break
check(refusal is not None, "the daemon's limit was never reached")
check(refusal.errno in (errno.ENFILE, errno.EMFILE), f"refused with {refusal}")
check(len(files) > 100, f"refused after {len(files)} files")
# At the limit, what is open works, and close() reports no error.
for n, file in enumerate(files):
    os.write(file, b"%d" % n)
    os.fsync(file)
    os.close(file)
# Now there is room again.
for n in range(len(files)):
    with open(f"file-{n}") as file:
        check(file.read() == str(n), f"content of file-{n}")
print(f"{len(files)} files open at the limit")
PROGRAM
