"""A server in this process: the real front, routes and queue, with workers that a test holds, slows down or ends."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import BytesIO

import httpx
import uvicorn
from PIL import Image

from vitrail.core.errors import RunError
from vitrail.serve.app import create_app
from vitrail.serve.front import Front, Limits, Service
from vitrail.serve.messages import Answering, Batch, Done, Facts, Model, Told
from vitrail.serve.patient_protocol import PatientProtocol
from vitrail.serve.processes import Team, WorkerGone
from vitrail.serve.speeds import Line

FACTS = Facts(
    name="toy",
    served="toy run",
    task="classify",
    labels=("cat", "dog"),
    sha256="0" * 64,
    size=(32, 32),
    channels=3,
    raw=False,
    zoom=None,
    points=(
        Answering("whole", "bf16", {}, Line(0.02, 0.002), {"value": 0.9, "low": 0.8, "high": 0.95}, 0.9),
        Answering("quarter", "bf16", {}, Line(0.004, 0.001), {"value": 0.7, "low": 0.6, "high": 0.8}, 0.7),
    ),
    sizes=(1, 2, 4, 8),
    decoding=1e-9,
    card="# toy\n",
)


def png(colour: str = "teal", size: tuple[int, int] = (30, 20)) -> bytes:
    kept = BytesIO()
    Image.new("RGB", size, colour).save(kept, "PNG")
    return kept.getvalue()


def told(name: str, data: bytes) -> Told:
    """Return the pretended answer: how many bytes came, or that the image is broken."""
    return Told(error=f"{name} cannot be read.") if b"broken" in data else Told({"bytes": len(data)})


def answers_at_once(batch: Batch) -> Done:
    return Done(tuple(told(*picture) for picture in batch.pictures), 0.0, 0.0)


class Hand:
    """What a test does with the workers, and what they did; safe from any thread."""

    def __init__(self, answer: Callable[[Batch], Done] = answers_at_once) -> None:
        self.answer = answer
        self.batches: list[Batch] = []
        self.finished = 0
        self.open = threading.Event()  # clear: batches wait
        self.open.set()
        self.started = threading.Event()  # clear: workers that start wait
        self.started.set()
        self.ends_of: Callable[[Batch], bool] = lambda batch: False
        self.failure = ""

    def sizes(self) -> list[int]:
        return [len(batch.pictures) for batch in self.batches]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold all batches."""
        self.open.clear()
        try:
            yield
        finally:
            self.open.set()


class PretendedWorker:
    """Answers as the hand wants it."""

    number, alive = 0, True

    def __init__(self, hand: Hand) -> None:
        self.hand, self.free_at = hand, 0.0

    async def ask(self, batch: Batch, limit: float) -> Done:
        self.hand.batches.append(batch)
        if self.hand.ends_of(batch):
            raise WorkerGone
        return await asyncio.to_thread(self._answer, batch)

    def _answer(self, batch: Batch) -> Done:
        self.hand.open.wait(20)
        began = time.perf_counter()
        done = self.hand.answer(batch)
        self.hand.finished += 1
        return done if done.network else done._replace(network=time.perf_counter() - began)

    def kill(self) -> None:
        pass

    def close(self) -> None:
        pass


class PretendedTeam(Team):
    """Workers without processes."""

    def __init__(self, front: Front, hand: Hand, facts: Facts) -> None:
        super().__init__(front.service.model, front.service.workers, self._look)
        self._front, self.hand, self.facts = front, hand, facts

    async def start(self) -> Facts:
        await asyncio.to_thread(self.hand.started.wait, 20)
        if self.hand.failure:
            raise RunError(self.hand.failure)
        self.free += [PretendedWorker(self.hand) for _ in range(self.count)]  # type: ignore[misc]
        return self.facts

    async def _another(self, failed: int) -> None:
        await asyncio.to_thread(self.hand.started.wait, 20)
        self.free.append(PretendedWorker(self.hand))  # type: ignore[arg-type]
        self._look()

    def _look(self) -> None:
        if self._front.batcher is not None:
            self._front.batcher.wake()


class Served(httpx.Client):
    """A client of a server in this process, with the hand that holds its workers."""

    def __init__(self, port: int, front: Front, hand: Hand) -> None:
        super().__init__(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
        self.port, self.front, self.hand = port, front, hand

    def predict(self, *images: bytes, **words: object) -> httpx.Response:
        """Send images as a form, or a single one as it is."""
        if len(images) == 1:
            return self.post("/predict", content=images[0], **words)  # type: ignore[arg-type]
        files = [("file", (f"{number}.png", one)) for number, one in enumerate(images)]
        return self.post("/predict", files=files, **words)  # type: ignore[arg-type]

    def raw(self, *parts: bytes) -> socket.socket:
        """Return a connection on which these bytes were sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        for part in parts:
            connection.sendall(part)
        return connection


def until(true: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def at_once(count: int, call: Callable[[int], httpx.Response]) -> list[httpx.Response]:
    """Return the answers to so many requests, each in a thread of its own."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


async def _run(front: Front, listener: socket.socket, box: list[uvicorn.Server]) -> None:
    config = uvicorn.Config(
        create_app(front), http=PatientProtocol, ws="none", lifespan="off", log_level="error"
    )
    box.append(uvicorn.Server(config))
    serving = asyncio.create_task(box[0].serve([listener]))
    with suppress(RunError):  # the front says why
        await front.open()
    await serving
    await front.close()


@contextmanager
def pretended(
    promise: float | None = None,
    facts: Facts = FACTS,
    hand: Hand | None = None,
    limits: Limits = Limits(),
    wait: bool = True,
    **words: object,
) -> Iterator[Served]:
    """Serve in a thread; `words` are those of the service."""
    service = Service(Model("toy"), promise, limits=limits, **words)  # type: ignore[arg-type]
    front, hand = Front(service), hand or Hand()
    front.team = PretendedTeam(front, hand, facts)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    box: list[uvicorn.Server] = []
    thread = threading.Thread(target=asyncio.run, args=(_run(front, listener, box),))
    thread.start()
    try:
        with Served(listener.getsockname()[1], front, hand) as client:
            until(lambda: box and box[0].started and (front.ready or not wait))
            yield client
    finally:
        hand.open.set()
        hand.started.set()
        box[0].should_exit = True
        thread.join(30)
        listener.close()


def images(count: int) -> Sequence[bytes]:
    """Return so many different images."""
    return [png(size=(20 + number, 20)) for number in range(count)]
