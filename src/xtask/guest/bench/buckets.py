"""What programs do in the objects of a bucket. Arguments: what to do, where, and how many small objects there are.

It follows `cold.py` and `bare_bucket.py`. The client's own cache stays as it is when the kernel forgets.
"""

import random
import sys
import time
import urllib.request

BIG_MIB = 1024
RANDOM_MIB = 256
FOLDERS = 100


def small_object(number):
    return f"many/{number % FOLDERS:02}/{number:06}"


def make(objects):
    content = random.Random(1)
    for name, size in [("big", BIG_MIB), ("random-4", RANDOM_MIB), ("random-128", RANDOM_MIB)]:
        with open(name, "wb") as file:
            for _ in range(size):
                file.write(content.randbytes(MIB))
    for number in range(objects):
        name = small_object(number)
        if number < FOLDERS:
            os.makedirs(os.path.dirname(name))
        with open(name, "wb") as file:
            file.write(content.randbytes(BLOCK))


def walk():
    return [os.lstat(name) for name in names_below("many")]


def places(length, count):
    """Where random reads of this length begin."""
    some = random.Random(7)
    return [some.randrange(RANDOM_MIB * MIB // length) * length for _ in range(count)]


def read_at_random(name, length, count):
    file = os.open(name, os.O_RDONLY)
    for place in places(length, count):
        os.pread(file, length, place)
    os.close(file)


def read_big():
    file = os.open("big", os.O_RDONLY)
    while os.read(file, MIB):
        pass
    os.close(file)


def client():
    import boto3
    from botocore.client import Config

    config = Config(signature_version="s3v4", s3={"addressing_style": "path"})
    return boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], config=config)


def requests():
    """How many the store has answered."""
    with urllib.request.urlopen(os.environ["STORE_METRICS"]) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("SeaweedFS_s3_request_total{"))


def figure(row, value):
    print(f"figure {row} {value:.9g}", flush=True)


def counted(row, work):
    """As `cold`, with the requests that it took until the kernel has forgotten again."""
    before = requests()
    cold(row, work)
    forget()
    figure(f"{row}-requests", requests() - before)


def read(_):
    for row, work in [
        ("walk", walk),
        ("random-4", lambda: read_at_random("random-4", BLOCK, 1000)),
        ("random-128", lambda: read_at_random("random-128", 128 << 10, 500)),
        ("sequential", read_big),
    ]:
        counted(row, work)
        timed(f"{row}-again", work)


def new_content():
    """Bytes to write, which take long to make."""
    return random.Random(1).randbytes(16 * MIB)


def write_big(content):
    file = os.open("written", os.O_CREAT | os.O_WRONLY, 0o644)
    for number in range(BIG_MIB):
        begin = number * MIB % len(content)
        os.write(file, content[begin : begin + MIB])
    os.fsync(file)
    os.close(file)


def write_small(content):
    os.makedirs("small", exist_ok=True)
    for number in range(SMALL_FILES):
        with open(f"small/{number:04}", "wb", buffering=0) as file:
            file.write(content[:BLOCK])


def stored(pages, prefix):
    """Bytes of the objects whose key begins with this."""
    found = pages.paginate(Bucket="data", Prefix=prefix)
    return sum(each["Size"] for page in found for each in page.get("Contents", []))


def passed(row, begin):
    figure(row, time.monotonic() - begin)


def write(_):
    pages = client().get_paginator("list_objects_v2")
    stored(pages, "nothing")
    content = new_content()
    os.mkdir("small")
    for row, work, prefix, size in [
        ("write", write_big, "written", BIG_MIB * MIB),
        ("small", write_small, "small/", SMALL_FILES * BLOCK),
    ]:
        forget()
        before, looks = requests(), 1
        begin = time.monotonic()
        timed(row, lambda: work(content))
        while stored(pages, prefix) < size:
            looks += 1
            time.sleep(0.05)
        passed(f"{row}-there", begin)
        figure(f"{row}-requests", requests() - before - looks)


os.makedirs(sys.argv[2], exist_ok=True)
os.chdir(sys.argv[2])
{"make": make, "read": read, "write": write, "bare": bare}[sys.argv[1]](int(sys.argv[3]))
