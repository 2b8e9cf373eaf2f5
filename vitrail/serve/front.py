"""The front of a server: its model, its queue and its workers, and what state it is in. No torch here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vitrail.core.errors import RunError
from vitrail.serve.batcher import Batcher, Bounds
from vitrail.serve.messages import Facts, Model
from vitrail.serve.metrics import Metrics
from vitrail.serve.policy import Point, Policy, SlackFit
from vitrail.serve.processes import Explainers, Team
from vitrail.serve.speeds import Speeds

WATCH = 1.0
"""Seconds between looks at workers that have nothing to do."""

PolicyMaker = Callable[[Sequence[Point], Speeds, int], Policy]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may be: bytes of its body, pixels of an image, images, and seconds to send and to answer it.

    `hosts` are those from which images may be fetched by URL.
    """

    data: int = 64_000_000
    pixels: int = 50_000_000
    images: int = 128
    seconds: float = 30.0
    hosts: tuple[str, ...] = ()

    def told(self) -> dict[str, object]:
        """Return the limits as the card of the server states them."""
        return {
            "bytes": self.data,
            "pixels": self.pixels,
            "images": self.images,
            "seconds": self.seconds,
            "urls": list(self.hosts),
        }


@dataclass(frozen=True, slots=True)
class Service:
    """What is served, and how: the model, the promise in seconds (None: none), workers, and images of a batch."""

    model: Model
    promise: float | None = None
    workers: int = 1
    largest: int = 16
    token: str = ""
    limits: Limits = Limits()


class Front:
    """Opens the model in its workers, and holds what the routes need.

    `started` becomes true once, when the model is open; `failed` says why it could not be opened.
    """

    def __init__(self, service: Service, policy: PolicyMaker = SlackFit) -> None:
        self.service, self.metrics, self._policy = service, Metrics(), policy
        self.facts: Facts | None = None
        self.batcher: Batcher | None = None
        self.failed = ""
        self.ending = False
        self.team = Team(service.model, service.workers, self._wake)
        self.explainers = Explainers(service.model)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def started(self) -> bool:
        """Whether the model is open and its points are measured."""
        return self.facts is not None

    @property
    def ready(self) -> bool:
        """Whether requests are taken now."""
        return self.started and not self.ending and self.team.alive > 0

    async def open(self) -> Facts:
        """Open the model in the workers, measure it, and take requests from then on.

        Raises:
            RunError: it cannot be opened.
        """
        try:
            facts = await self.team.start()
        except RunError as error:
            self.failed = str(error)
            raise
        threads = self.service.model.threads
        speeds = Speeds({one.name: one.line for one in facts.points}, facts.sizes, facts.decoding, threads)
        points = [Point(one.name, one.good) for one in facts.points]
        policy = self._policy(points, speeds, self.service.largest)
        limits = self.service.limits
        bounds = Bounds(self.service.promise, limits.seconds)
        self.batcher = Batcher(policy, speeds, self.team, bounds, self.metrics)
        self._gauges(self.batcher)
        self.facts = facts
        self._tasks = [asyncio.create_task(self.batcher.run()), asyncio.create_task(self._watch())]
        return facts

    async def close(self) -> None:
        """End the workers; what was accepted was answered before (`drain`)."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(self.team.close(), self.explainers.close())

    async def drain(self) -> None:
        """Take no more requests, and wait until those that were accepted are answered."""
        self.ending = True
        if self.batcher is not None:
            await self.batcher.empty()
        await self.explainers.answered()

    def _wake(self) -> None:
        if self.batcher is not None:
            self.batcher.wake()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH)
            self.team.watch()

    def _gauges(self, batcher: Batcher) -> None:
        gauge = self.metrics.gauge
        gauge("vitrail_queue_images", "Images that wait", lambda: len(batcher.waiting))
        gauge("vitrail_computing_images", "Images that are computed", lambda: batcher.computing)
        gauge("vitrail_workers", "Workers that can compute", lambda: self.team.alive)
        gauge(
            "vitrail_worker_restarts", "Workers that ended and were started again", lambda: self.team.restarts
        )
        gauge(
            "vitrail_pace",
            "How much longer batches take than when the server started",
            lambda: batcher.speeds.pace(asyncio.get_running_loop().time()),
        )
