"""The rows of `buckets.py` that a bare client has, without a file system: curl, whose requests are signed beforehand.

It follows `cold.py`. One request goes after another, on one connection, as many as the row needs at least.
"""

import os
import subprocess

PAGE = 1000


def signed(request, **parameters):
    """The address of a request, with its signature."""
    parameters = {"Bucket": "data", **parameters}
    return client().generate_presigned_url(request, Params=parameters, ExpiresIn=36_000)


def curl(transfers):
    """What makes these transfers: of each an address and further options."""
    common = ["silent", "show-error", "fail", 'output = "/dev/null"', 'header = "Expect:"']
    each = ["\n".join(common + [f'url = "{url}"', *options]) for url, *options in transfers]
    config = "\nnext\n".join(each)
    command = ["curl", "--fail-early", "--config", "-"]
    return lambda: subprocess.run(command, input=config, text=True, check=True)


def bare_pages(objects):
    """Listings of all small objects, page by page: their keys are known."""
    keys = sorted(small_object(number) for number in range(objects))
    after = ["", *keys[PAGE - 1 : -1 : PAGE]]
    pages = [{"StartAfter": key} if key else {} for key in after]
    return curl([[signed("list_objects_v2", Prefix="many/", **page)] for page in pages])


def bare_ranges(name, length, count):
    url = signed("get_object", Key=name)
    ranges = [f'range = "{at}-{at + length - 1}"' for at in places(length, count)]
    return curl([[url, at] for at in ranges])


def bare_upload(name, file):
    return [signed("put_object", Key=name), f'upload-file = "{os.path.abspath(file)}"']


def bare(objects):
    counted("walk", bare_pages(objects))
    counted("random-4", bare_ranges("random-4", BLOCK, 1000))
    counted("random-128", bare_ranges("random-128", 128 << 10, 500))
    counted("sequential", curl([[signed("get_object", Key="big")]]))
    content = new_content()
    for row, write, names in [
        ("write", write_big, ["written"]),
        ("small", write_small, [f"small/{number:04}" for number in range(SMALL_FILES)]),
    ]:
        # What is sent lies in the kernel's memory, as what a program writes does.
        forget()
        write(content)
        uploads = curl([bare_upload(name, name) for name in names])
        before, begin = requests(), time.monotonic()
        timed(row, uploads)
        passed(f"{row}-there", begin)
        figure(f"{row}-requests", requests() - before)


