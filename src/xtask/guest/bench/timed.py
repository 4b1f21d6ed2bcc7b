"""Runs a command and prints how long it took.

timed.py ROW [--cold] COMMAND [ARGUMENT...]

What was written before is on the host's disk when the clock starts. With
--cold this guest has forgotten every clean page, dentry and inode; the host
has not. What the command prints must not look like a figure.
"""

import os
import subprocess
import sys
import time


def settle(cold):
    """Lets what was written reach the disk; `cold` empties the caches."""
    os.sync()
    if cold:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")


def figure(row, value):
    """Prints a row's figure for the host."""
    print(f"figure {row} {value:.9g}", flush=True)


def main():
    row, *command = sys.argv[1:]
    cold = command[0] == "--cold"
    if cold:
        command = command[1:]
    settle(cold)
    begin = time.monotonic()
    subprocess.run(command, check=True)
    figure(row, time.monotonic() - begin)


if __name__ == "__main__":
    main()
