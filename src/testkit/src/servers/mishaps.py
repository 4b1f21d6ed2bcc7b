"""What befalls requests on their way to a store and back, for mitmdump: each kind once in every few requests, at places that
a seed says. A line for each goes to the file `mishaps`."""

import asyncio
import os
import random

from mitmproxy import http

# Of so many requests in a row each kind of mishap befalls one.
ROW = 10
KINDS = ["refused", "cut", "late", "lost"]
REFUSAL = b"<Error><Code>SlowDown</Code></Error>"


class Mishaps:
    def __init__(self):
        self.random = random.Random(int(os.environ["MISHAPS_SEED"]))
        # Writes and all else have rows of their own.
        self.rows = {True: [], False: []}
        self.told = open("mishaps", "a", buffering=1)

    def next(self, flow):
        row = self.rows[flow.request.method == "PUT"]
        if not row:
            row.extend(KINDS + [None] * (ROW - len(KINDS)))
            self.random.shuffle(row)
        return row.pop()

    def tell(self, kind, flow):
        self.told.write(f"{kind} {flow.request.method} {flow.request.path}\n")

    def request(self, flow):
        kind = self.next(flow)
        flow.metadata["mishap"] = kind
        if kind == "refused":
            self.tell(kind, flow)
            headers = {"Content-Type": "application/xml"}
            flow.response = http.Response.make(503, REFUSAL, headers)
        elif kind == "cut":
            # The store never sees it.
            self.tell(kind, flow)
            flow.kill()

    async def response(self, flow):
        kind = flow.metadata.get("mishap")
        if kind == "late":
            self.tell(kind, flow)
            await asyncio.sleep(0.3)
        elif kind == "lost":
            # The store has done it.
            self.tell(kind, flow)
            flow.kill()


addons = [Mishaps()]
