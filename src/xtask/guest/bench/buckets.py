"""What programs do in the objects of a bucket. Arguments: what to do, where, and how many small objects are to be made.

It follows `cold.py`. The client's own cache stays as it is when the kernel forgets.
"""

import random
import sys
import time

BIG_MIB = 1024
RANDOM_MIB = 256
FOLDERS = 100


def make():
    content = random.Random(1)
    for name, size in [("big", BIG_MIB), ("random-4", RANDOM_MIB), ("random-128", RANDOM_MIB)]:
        with open(name, "wb") as file:
            for _ in range(size):
                file.write(content.randbytes(MIB))
    for number in range(int(sys.argv[3])):
        folder = f"many/{number % FOLDERS:02}"
        if number < FOLDERS:
            os.makedirs(folder)
        with open(f"{folder}/{number:06}", "wb") as file:
            file.write(content.randbytes(BLOCK))


def walk():
    return [os.lstat(name) for name in names_below("many")]


def read_at_random(name, length, count):
    places = random.Random(7)
    file = os.open(name, os.O_RDONLY)
    for _ in range(count):
        os.pread(file, length, places.randrange(RANDOM_MIB * MIB // length) * length)
    os.close(file)


def read_big():
    file = os.open("big", os.O_RDONLY)
    while os.read(file, MIB):
        pass
    os.close(file)


def read():
    for row, work in [
        ("walk", walk),
        ("random-4", lambda: read_at_random("random-4", BLOCK, 1000)),
        ("random-128", lambda: read_at_random("random-128", 128 << 10, 500)),
        ("sequential", read_big),
    ]:
        cold(row, work)
        cold(f"{row}-again", work)


def write_big():
    write_random("written", BIG_MIB)


def write_small():
    content = random.Random(1).randbytes(BLOCK)
    for number in range(SMALL_FILES):
        with open(f"small/{number:04}", "wb", buffering=0) as file:
            file.write(content)


def stored(prefix):
    """Bytes of the objects whose key begins with this."""
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="data", Prefix=prefix)
    return sum(each["Size"] for page in pages for each in page.get("Contents", []))


def until_there(row, begin, prefix, size):
    while stored(prefix) < size:
        time.sleep(0.05)
    print(f"figure {row} {time.monotonic() - begin:.9g}", flush=True)


def write():
    stored("nothing")
    os.mkdir("small")
    for row, work, prefix, size in [
        ("write", write_big, "written", BIG_MIB * MIB),
        ("small", write_small, "small/", SMALL_FILES * BLOCK),
    ]:
        forget()
        begin = time.monotonic()
        timed(row, work)
        until_there(f"{row}-there", begin, prefix, size)


os.makedirs(sys.argv[2], exist_ok=True)
os.chdir(sys.argv[2])
{"make": make, "read": read, "write": write}[sys.argv[1]]()
