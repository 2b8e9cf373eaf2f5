"""Hostile requests to `vitrail serve`: no 5xx, no crash, no connection without an answer, and bounded memory.

`python -m bench.fuzz_server [MODEL] [--requests 10000] [--long 100000] [--seed 0] [--words=--latency=300ms]`. Without a
model a tiny network is fitted first. Sends generated requests for the OpenAPI document (schemathesis), broken images,
forms and JSON, wrong tokens and hosts, broken HTTP, bodies and heads that are too large or too slow. In between the
same picture must get the same answer. `--long` sends so many plain requests and reports how the memory grew.
"""

from __future__ import annotations

import argparse
import http.client
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from bench import fuzz_document, fuzz_sieges
from bench.fuzz_client import Address, Answer, Asked, Tally
from bench.fuzz_images import file_of, whole
from bench.fuzz_requests import Requests

TOKEN = "a-token-of-the-bench"
LIMIT = 5
"""Seconds in which the server wants a body; its limit of a head is ten."""

SENDERS = 4
CONNECTIONS = 8
"""Connections of the plain requests."""

CANARY = 200
"""Requests after which the picture is sent whose answer is known."""

TIMES = ("queue_ms", "decode_ms", "network_ms", "batch")
Pids = dict[str, int]


class Server(NamedTuple):
    """A server that is ready, and what tells its state."""

    address: Address
    process: subprocess.Popen[str]
    log: Path

    def processes(self) -> Pids:
        """Return the process ids of the front and of what it started, without Python's own helper."""
        children = psutil.Process(self.process.pid).children()
        workers = sorted(one.pid for one in children if "resource_tracker" not in " ".join(one.cmdline()))
        names = ("worker", "explainer", *(f"worker {n}" for n in range(2, len(workers))))
        return {"front": self.process.pid, **dict(zip(names, workers, strict=False))}

    def memory(self) -> dict[str, float]:
        """Return the resident memory of its processes in MB."""
        return {name: psutil.Process(pid).memory_info().rss / 1e6 for name, pid in self.processes().items()}

    def ask(self, data: bytes, path: str = "/predict") -> Answer:
        """Send a picture and return the answer."""
        return self.address.ask(Asked("canary", self.address.post(path, data)))


@contextmanager
def served(
    model: Path, words: Sequence[str] = (), token: str = TOKEN, seconds: float = LIMIT
) -> Iterator[Server]:
    """Start a server with a model, wait until it is ready, and end it afterwards; bodies have so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        log, file = Path(folder) / "log", Path(folder) / "token"
        file.write_text(token)
        command = [sys.executable, "-m", "vitrail", "serve", str(model), "--port", "0"]
        command += [*(("--token-file", str(file)) if token else ()), "--max-seconds", str(seconds), *words]
        with log.open("w") as said:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            if not told.startswith("http"):
                sys.exit(f"The server did not start:\n{log.read_text()[-3000:]}")
            port = int(told.strip().rstrip("/").rpartition(":")[2])
            yield Server(Address("127.0.0.1", port, token), process, log)
        finally:
            process.terminate()
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()


class Canary:
    """A picture whose answer must never change."""

    def __init__(self, server: Server) -> None:
        self.server, self.data = server, file_of(whole(7, 64), "PNG")
        self.known, self.wrong, self.count = self._asked(), list[str](), 0

    def look(self) -> None:
        """Send it, and note an answer that is another one."""
        self.count += 1
        if (found := self._asked()) != self.known:
            self.wrong.append(f"{found} instead of {self.known}")

    def _asked(self) -> Any:
        for _ in range(60):  # under siege it may be refused, and is sent again
            answer = self.server.ask(self.data)
            if answer.code != 429:
                break
            time.sleep(0.5)
        if answer.code != 200:
            return answer
        return [{k: v for k, v in one.items() if k not in TIMES} for one in answer.json()["answers"]]


def fuzzed(server: Server, requests: Requests, count: int, tally: Tally, canary: Canary) -> None:
    """Send so many hostile requests, a few at a time."""
    source = iter(requests)
    with ThreadPoolExecutor(SENDERS) as pool:
        for start in range(0, count, CANARY):
            asked = [next(source) for _ in range(min(CANARY, count - start))]
            for one, answer in zip(asked, pool.map(server.address.ask, asked), strict=True):
                tally.count(one, answer)
            canary.look()


def besieged(server: Server, model: str, tally: Tally, canary: Canary, connections: int = 200) -> str:
    """Send what is large, slow or many; return a sentence about the body without end."""
    address = server.address
    for asked, answer in fuzz_sieges.named(address, model):
        tally.count(asked, answer)
    tally.count(*fuzz_sieges.stated_body(address))
    asked, answer, taken = fuzz_sieges.endless_body(address)
    tally.count(asked, answer)
    tally.count(*fuzz_sieges.large_head(address))
    canary.look()
    for asked, answer in fuzz_sieges.slow(address, connections, 30, canary.look):
        tally.count(asked, answer)
    return f"{taken / 1e6:.0f} MB of a body without end were taken before it was ended."


def plain(server: Server, count: int) -> Iterator[int]:
    """Send so many requests of a small picture over some connections at once; yield the number now and then."""
    parts = 10
    each = max(1, count // parts // CONNECTIONS)
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        for part in range(1, parts + 1):
            list(threads.map(partial(row_of, server), [each] * CONNECTIONS))
            yield part * each * CONNECTIONS


def row_of(server: Server, count: int) -> None:
    """Send requests one after the other over one connection."""
    data, address = file_of(whole(1), "JPEG"), server.address
    connection = http.client.HTTPConnection(address.host, address.port, timeout=60)
    fields = {"Authorization": f"Bearer {address.token}", "Content-Type": "image/jpeg"}
    for _ in range(count):
        connection.request("POST", "/predict", data, fields)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"A plain request was answered with {answer.status}.")
    connection.close()


def shown(memory: dict[str, float]) -> str:
    return ", ".join(f"{name} {size:.1f} MB" for name, size in memory.items())


def report(server: Server, tally: Tally, canary: Canary, before: Pids) -> list[str]:
    """Print the counts; return sentences about all that is wrong."""
    print("answers:", ", ".join(f"{code} {count:,}" for code, count in sorted(tally.codes.items())))
    wrong = [*tally.wrong, *(f"canary: {one}" for one in canary.wrong)]
    now = server.processes()
    wrong += [f"the {name} ended" for name, pid in before.items() if now.get(name) != pid]
    said = server.log.read_text()
    if "Traceback" in said or len(wrong) > len(tally.wrong):
        wrong.append(f"the server said:\n{said[-4000:]}")
    print(f"{canary.count} canaries, {len(canary.wrong)} wrong; {len(wrong)} faults")
    for one in wrong[:60]:
        print("  ", one)
    return wrong


def long(server: Server, count: int) -> None:
    """Send plain requests and print the memory, after a tenth of them as the first to compare with."""
    first: dict[str, float] = {}
    began = time.monotonic()
    for number in plain(server, count):
        memory = server.memory()
        first = first or memory
        print(f"after {number:,} plain requests: {shown(memory)}", flush=True)
    grown = {name: size - first[name] for name, size in server.memory().items() if name in first}
    print(
        f"{count:,} plain requests in {time.monotonic() - began:.0f} s; grown since the first tenth: {shown(grown)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--long", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--words", action="append", default=[], help="options of vitrail serve")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended."))  # the server is ended, too
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or tiny(Path(folder))
        with served(model, given.words) as server:
            wrong = all_of_it(server, given) if given.requests else []
            if given.long:
                long(server, given.long)
    sys.exit(1 if wrong else 0)


def tiny(folder: Path) -> Path:
    """Write a small network whose head is fitted."""
    from bench import toy

    return toy.model(folder, "vit_digits", 32)


def all_of_it(server: Server, given: argparse.Namespace) -> list[str]:
    """Send everything: a third by schemathesis, the rest by our own makers; print what came of it."""
    tally, canary = Tally(), Canary(server)
    other = Asked("another model", server.address.head("GET /v2/models/other", "Connection: close"))
    model = str(server.address.ask(other).json()["error"]).rpartition(" ")[2].rstrip(".")
    before = server.processes()
    print("before:", shown(server.memory()), flush=True)
    document = fuzz_document.tried(server.address, max(1, given.requests // 45), given.seed)
    print(f"schemathesis: {document.count:,} requests, {len(document.failures)} failures, {document.errors}")
    tally.codes.update(document.codes)
    tally.wrong += document.failures
    print("after the document:", shown(server.memory()), flush=True)
    fuzzed(
        server, Requests(server.address, model, given.seed), given.requests - document.count, tally, canary
    )
    print("after hostile requests:", shown(server.memory()), flush=True)
    print(besieged(server, model, tally, canary))
    print("after the siege:", shown(server.memory()), flush=True)
    return report(server, tally, canary, before)


if __name__ == "__main__":
    main()
