# Compares a bucket with what a guest says it has written there. Arguments: the bucket, and the prefix. The object
# "manifest" has a line for each file: its type, mode, owner, group, checksum (of a link: of its target) and path.
import hashlib, os, sys
import boto3

bucket, prefix = sys.argv[1:]
store = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
objects = {}
for page in store.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
    for item in page.get("Contents", []):
        objects[item["Key"][len(prefix):]] = item["Size"]

body = store.get_object(Bucket=bucket, Key=prefix + "manifest")["Body"].read().decode()
expected = {}
for line in body.splitlines():
    kind, mode, uid, gid, checksum, path = line.split(" ", 5)
    expected[path] = (kind, mode, uid, gid, checksum)

assert len(expected) > 100, len(expected)
types = {"f": 0o100000, "l": 0o120000, "d": 0o040000}
for path, (kind, mode, uid, gid, checksum) in expected.items():
    key = path + "/" if kind == "d" else path
    got = store.get_object(Bucket=bucket, Key=prefix + key)
    content = got["Body"].read()
    said = got["Metadata"]
    if kind == "d":
        # SeaweedFS keeps what a marker said first.
        continue
    assert hashlib.sha256(content).hexdigest() == checksum, path
    assert int(said["mode"]) == types[kind] | int(mode, 8), (path, said)
    assert (said["uid"], said["gid"]) == (uid, gid), (path, said)
    float(said["mtime"])

# As s3fs encodes it.
encoded = store.head_object(Bucket=bucket, Key=prefix + "tree/large")["Metadata"]["xattr"]
assert encoded == "%7B%22user.colour%22%3A%22ZGFyayByZWQ%3D%22%7D", encoded

known = {path + "/" if entry[0] == "d" else path for path, entry in expected.items()}
surplus = set(objects) - known - {"manifest", ""}
assert not surplus, sorted(surplus)[:20]
