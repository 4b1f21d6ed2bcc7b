"""For the scripts that run in a guest: what lib.sh is for the shell."""

import sys


def host(*words):
    """Asks the host to do something and waits for it."""
    print("##vfsd host", *words, flush=True)
    with open("/dev/console") as console:
        answer = console.readline().strip()
    if answer != "ok":
        fail(f"on the host, {' '.join(words)}: {answer}")


def fail(message):
    """Ends the script as failed."""
    print("FAIL:", message)
    sys.exit(1)


def check(condition, message):
    """Fails unless the condition holds."""
    if not condition:
        fail(message)
