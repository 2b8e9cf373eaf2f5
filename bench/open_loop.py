"""Send images to a server at given times, whatever it does, and count how late its answers were.

`python -m bench.open_loop URL FOLDER --arrivals TIMES.json --promise 100` posts the images of the folder in turn as
raw bytes, each at its time of the list (seconds, see `bench.arrivals`). A latency counts from that time, not from the
moment at which the generator came to send it. `--closed 32 --seconds 6` keeps 32 requests outstanding instead, which
is how a capacity is measured. A line `started` on standard output, then the numbers as JSON; `--out` keeps every
request. The client is our own, of asyncio's protocols: HTTP clients for Python take more of a core for a request than
some servers do.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from collections.abc import Sequence
from itertools import count, cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.load_numbers import REFUSED, Asked, capacity, summary

IDLE = 2.0
"""Seconds after which a connection is not used again: servers close theirs after 5."""

PAUSE = 0.1
"""Seconds that a closed loop waits after a request that was refused or lost."""

LEAD = 0.3
"""Seconds from the start to time 0 of the schedule."""


class Connection(asyncio.Protocol):
    """A connection that carries one request at a time; answers must state their length."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self.received = bytearray()
        self.body = -1
        self.length = 0
        self.used = 0.0
        self.fresh = True

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, message: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send a request; the future is its status and body, or a ConnectionError."""
        self.received.clear()
        self.body = -1
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(message)
        return self.waiting

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.body < 0:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return
            self.body = end + 4
            head = bytes(self.received[:end]).lower()
            stated = head.find(b"\r\ncontent-length:")
            if stated < 0:
                self.transport.abort()
                return
            self.length = int(head[stated + 17 :].split(b"\r\n", 1)[0])
            if b"\r\nconnection: close" in head:
                self.transport.close()
        if len(self.received) >= self.body + self.length and self.waiting and not self.waiting.done():
            status = int(self.received[9:12])
            self.waiting.set_result((status, bytes(self.received[self.body : self.body + self.length])))

    def connection_lost(self, error: Exception | None) -> None:
        if self.waiting and not self.waiting.done():
            self.waiting.set_exception(ConnectionError(str(error or "the server closed the connection")))


class Client:
    """Keeps connections open and asks with the one that was used last."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.idle: list[Connection] = []
        self.again = 0
        """Requests that were sent once more, as their connection had been closed while it was idle."""

    async def open(self) -> Connection:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, self.host, self.port))[1]

    async def ask(self, message: bytes) -> tuple[int, bytes]:
        """Return the status and the body of an answer; ConnectionError or OSError if there is none."""
        connection = self._ready() or await self.open()
        try:
            answer = await connection.ask(message)
        except ConnectionError:
            if connection.fresh or connection.received:
                raise
            self.again += 1
            connection = await self.open()
            answer = await connection.ask(message)
        if not connection.transport.is_closing():
            connection.fresh, connection.used = False, time.monotonic()
            self.idle.append(connection)
        return answer

    def _ready(self) -> Connection | None:
        while self.idle:
            connection = self.idle.pop()
            if not connection.transport.is_closing() and time.monotonic() - connection.used < IDLE:
                return connection
            connection.transport.close()
        return None

    def close(self) -> None:
        for connection in self.idle:
            connection.transport.close()


def messages(url: str, images: Path) -> list[bytes]:
    """Return the request of every image of a folder, ready to send."""
    parts = urlsplit(url)
    made = []
    for path in sorted(path for path in images.rglob("*") if path.is_file()):
        data = path.read_bytes()
        head = (
            f"POST {parts.path or '/predict'} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: application/json\r\n"
            f"Content-Type: application/octet-stream\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        made.append(head.encode() + data)
    if not made:
        raise SystemExit(f"There is no image in {images}.")
    return made


async def sent_at(
    client: Client, asked: Sequence[bytes], arrivals: Sequence[float], wait: float
) -> list[Asked]:
    """Send a request at each time; those without an answer `wait` seconds after the last one have none."""
    loop = asyncio.get_running_loop()
    zero = loop.time() + LEAD
    found: list[Asked] = []

    async def one(at: float, message: bytes) -> None:
        sent = loop.time() - zero
        try:
            status, body = await client.ask(message)
        except OSError as error:
            found.append(Asked(at, sent, loop.time() - zero - at, 0, trouble=str(error)))
            return
        except asyncio.CancelledError:
            found.append(Asked(at, sent, loop.time() - zero - at, 0, trouble="no answer"))
            return
        late = loop.time() - zero - at
        found.append(Asked(at, sent, late, status, trouble=body.decode("utf-8", "replace")))

    tasks = []
    for at, message in zip(arrivals, cycle(asked), strict=False):
        if (early := zero + at - loop.time()) > 0:
            await asyncio.sleep(early)
        tasks.append(loop.create_task(one(at, message)))
    if tasks:
        _, unanswered = await asyncio.wait(tasks, timeout=wait)
        for task in unanswered:
            task.cancel()
        await asyncio.gather(*tasks)
    return [_read(one) for one in sorted(found)]


def _read(one: Asked) -> Asked:
    """Take point and batch from an answer; only what is wrong remains as its trouble."""
    if not one.status:
        return one
    if one.status != 200:
        return one._replace(trouble=one.trouble[:200])
    try:
        answer = json.loads(one.trouble)["answers"][0]
    except (ValueError, KeyError, IndexError, TypeError):
        return one._replace(status=0, trouble=f"not an answer: {one.trouble[:200]}")
    if answer.get("error"):
        return one._replace(status=0, trouble=str(answer["error"])[:200])
    return one._replace(point=str(answer.get("point", "")), batch=int(answer.get("batch") or 1), trouble="")


async def kept_busy(client: Client, asked: Sequence[bytes], outstanding: int, seconds: float) -> list[Asked]:
    """Keep so many requests outstanding for so long; times count from the start."""
    loop = asyncio.get_running_loop()
    zero, numbers = loop.time(), count()
    found: list[Asked] = []

    async def one() -> None:
        while (sent := loop.time() - zero) < seconds:
            try:
                status, body = await client.ask(asked[next(numbers) % len(asked)])
            except OSError as error:
                found.append(Asked(sent, sent, loop.time() - zero - sent, 0, trouble=str(error)))
                await asyncio.sleep(PAUSE)
                continue
            if status in REFUSED:
                await asyncio.sleep(PAUSE)
            late = loop.time() - zero - sent
            found.append(Asked(sent, sent, late, status, trouble=body.decode("utf-8", "replace")))

    await asyncio.gather(*(one() for _ in range(outstanding)))
    return [_read(one) for one in sorted(found)]


async def run(options: argparse.Namespace) -> tuple[list[Asked], float]:
    """Return the requests and the share of a core that sending them took."""
    client, asked = Client(options.url), messages(options.url, options.images)
    client.idle = [await client.open() for _ in range(options.connections)]
    for one in client.idle:
        one.used = time.monotonic() + LEAD
    print("started", flush=True)
    began, used = time.monotonic(), time.process_time()
    if options.closed:
        found = await kept_busy(client, asked, options.closed, options.seconds)
    else:
        arrivals = json.loads(options.arrivals.read_text())
        found = await sent_at(client, asked, arrivals, options.wait)
    share = (time.process_time() - used) / (time.monotonic() - began)
    client.close()
    return found, share


def main() -> None:
    words = argparse.ArgumentParser(prog="bench.open_loop", description=__doc__)
    words.add_argument("url", help="with its path, such as http://127.0.0.1:8000/predict")
    words.add_argument("images", type=Path)
    words.add_argument("--arrivals", type=Path, help="a JSON list of seconds")
    words.add_argument("--promise", type=float, default=100, help="milliseconds")
    words.add_argument("--wait", type=float, default=10, help="seconds for the last answers")
    words.add_argument("--scores", type=Path, help="a JSON object: the score of every point")
    words.add_argument("--first", type=float, help="also the numbers of the requests of the first seconds")
    words.add_argument("--connections", type=int, default=32, help="that are open from the start")
    words.add_argument("--closed", type=int, default=0, help="keep so many requests outstanding")
    words.add_argument("--seconds", type=float, default=6, help="of a closed loop")
    words.add_argument("--out", type=Path, help="keep every request, as JSON")
    options = words.parse_args()
    gc.disable()
    found, share = asyncio.run(run(options))
    scores = json.loads(options.scores.read_text()) if options.scores else {}
    numbers = capacity(found) if options.closed else summary(found, options.promise, scores)
    if options.first:
        early = [one for one in found if one.scheduled < options.first]
        numbers["early"] = summary(early, options.promise, scores)
    print(json.dumps({**numbers, "generator_cpu": share}))
    if options.out:
        options.out.write_text(json.dumps([one._asdict() for one in found]))


if __name__ == "__main__":
    main()
