# Fills a bucket by a client that is not ours. Argument: the bucket. What is put there is listed in
# the object "manifest", as sha256sum checks it.
import hashlib, os, random, sqlite3, subprocess, sys, tempfile
import boto3

bucket = sys.argv[1]
store = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
store.create_bucket(Bucket=bucket)
source = random.Random(20260101)
manifest = []


def put(key, body, **metadata):
    store.put_object(Bucket=bucket, Key=key, Body=body, Metadata=metadata)
    manifest.append(f"{hashlib.sha256(body).hexdigest()}  {key}\n")


for number in range(1200):
    put(f"small/{number % 7}/{number % 11}/file {number}", source.randbytes(number % 700))
put("large", source.randbytes(40_000_000))
put("empty", b"")
put("program", b"#!/bin/sh\necho ran from a bucket\n", mode="33261", uid="1", gid="1", mtime="981173106")
store.put_object(Bucket=bucket, Key="marked/", Body=b"")

with tempfile.TemporaryDirectory() as folder:
    database = os.path.join(folder, "database")
    with sqlite3.connect(database) as connection:
        connection.execute("create table numbers (n integer primary key, square integer)")
        connection.executemany("insert into numbers values (?, ?)", ((n, n * n) for n in range(20000)))
    connection.close()
    with open(database, "rb") as file:
        put("database", file.read())

    def git(*words, inside):
        identity = ["-c", "user.name=tester", "-c", "user.email=tester@localhost"]
        subprocess.run(["git", *identity, *words], cwd=inside, check=True, capture_output=True)

    work, bare = os.path.join(folder, "work"), os.path.join(folder, "repository.git")
    os.mkdir(work)
    git("init", "-q", inside=work)
    for number in range(200):
        with open(os.path.join(work, f"file-{number}"), "w") as file:
            file.write(f"{number}\n" * number)
    git("add", "-A", inside=work)
    git("commit", "-q", "-m", "all", inside=work)
    git("clone", "-q", "--bare", work, bare, inside=folder)
    for path, folders, names in os.walk(bare):
        if not folders and not names:
            store.put_object(Bucket=bucket, Key=os.path.relpath(path, folder) + "/", Body=b"")
        for name in names:
            full = os.path.join(path, name)
            with open(full, "rb") as file:
                put(os.path.relpath(full, folder), file.read())

put("manifest", "".join(manifest).encode())
