"""The queue of a server: images come in, are admitted or refused, and leave in batches that the policy chooses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from logging import getLogger
from typing import Protocol

from vitrail.serve.arrivals import ArrivalRate
from vitrail.serve.messages import Batch, Done, Told
from vitrail.serve.policy import Decision, Moment, Policy, next_alike, without
from vitrail.serve.processes import Team, WorkerGone, WorkerProcess
from vitrail.serve.speeds import Load, Seen, Speeds
from vitrail.serve.waiting import Answered, Refused, Sent, Waiting, Wanted, pixels_of, refuse, too_slow

TRIES = 2
"""How often an image is computed whose worker ended meanwhile; it is alone in its batch from the second time on."""

STUCK = 60.0
"""Seconds after which a worker at a batch is ended, at least: starting another one takes longer than most batches."""

RESTART = 3.0
"""Seconds that a worker takes to start at least."""

LATE = "late"
"""Why an image was refused that had been accepted: the server became slower than it was."""


class Counts(Protocol):
    """What is told of every batch and every refusal, for metrics."""

    def computed(self, batch: Seen, answered: Sequence[Answered]) -> None:
        """Note a batch."""
        ...

    def refused(self, why: str, images: int) -> None:
        """Note images that were refused."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of the queue: seconds of the promise (None: none), of any request, images and bytes that may wait."""

    promise: float | None = None
    seconds: float = 30.0
    images: int = 512
    data: int = 512 << 20


class Batcher:
    """Admits images, and hands them to workers in batches.

    `policy` decides at each batch; `speeds` is refitted with each. All of it runs in one event loop.
    """

    def __init__(self, policy: Policy, speeds: Speeds, team: Team, bounds: Bounds, counts: Counts) -> None:
        self.policy, self.speeds, self.team, self.bounds, self.counts = policy, speeds, team, bounds, counts
        self.waiting: list[Waiting] = []
        self.computing = 0
        self.arrivals = ArrivalRate()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._batches = set[asyncio.Task[None]]()

    def wake(self) -> None:
        """Look again whether a batch can be computed."""
        self._wake.set()

    def offer(self, images: Sequence[Sent], wanted: Wanted, arrived: float) -> list[Waiting]:
        """Take the images of a request that arrived then, all of them or none.

        Raises:
            Refused: they cannot be answered in time, or too much waits already.
        """
        now = time.monotonic()
        self.arrivals.came(now, len(images))
        limit = wanted.seconds or self.bounds.promise or self.bounds.seconds
        new = [self._waiting(one, wanted, arrived, limit) for one in images]
        try:
            self._refuse_crowd(new)
            self._refuse_late(new, now, limit)
        except Refused as refused:
            self._missed(refused.why, new)
            raise
        self.waiting = sorted([*self.waiting, *new], key=lambda one: one.deadline)
        self._bytes += sum(len(one.sent.picture.data) for one in new)
        self._wake.set()
        return new

    def forget(self, images: Sequence[Waiting]) -> None:
        """Give up images whose client has gone or whose time is over; those in a batch are computed in vain."""
        for one in images:
            one.answer.cancel()
        gone = set(map(id, images))
        self._leave([one for one in self.waiting if id(one) in gone])

    async def run(self) -> None:
        """Compute batches until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(0)  # images that came at the same moment share a batch
            while self.waiting and self.team.free:
                self._shed()
                if self.waiting:
                    self._next_batch()

    async def empty(self) -> None:
        """Wait until nothing waits and nothing is computed."""
        while self.waiting or self._batches:
            await asyncio.sleep(0.01)

    def _waiting(self, sent: Sent, wanted: Wanted, arrived: float, limit: float) -> Waiting:
        decode = self.speeds.decoding(sent.kind, sent.pixels)
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        return Waiting(sent, wanted, arrived, arrived + limit, decode, future)

    def _refuse_crowd(self, new: Sequence[Waiting]) -> None:
        """Raise `Refused` if no worker is there, or the queue is full."""
        if not self.team.alive:
            raise _restarting()
        data = sum(len(one.sent.picture.data) for one in new)
        if len(self.waiting) + len(new) > self.bounds.images or self._bytes + data > self.bounds.data:
            raise Refused(
                f"{len(self.waiting)} images wait already. Try again later.", "full", self._clear_in()
            )

    def _refuse_late(self, new: Sequence[Waiting], now: float, limit: float) -> None:
        """Raise `Refused` if the images, or those that wait before them, could not be answered in time."""
        best = sum(
            self.speeds.at_best(new[0].point or self.cheapest, Load.of(new[i : i + self.policy.largest]))
            for i in range(0, len(new), self.policy.largest)
        )
        if best > limit:
            raise Refused(too_slow(new, best, limit), "never")
        moment = self._moment(now, sorted([*self.waiting, *new], key=lambda one: one.deadline))
        idle = not self.waiting and self.team.free  # then it always tries, unless reading took the time
        late = now + best > new[0].deadline if idle else not self.policy.admits(moment)
        if late:
            raise Refused(
                f"The server cannot answer within {1000 * limit:.0f} ms now. Try again later.",
                "busy",
                self._clear_in(),
            )

    @property
    def cheapest(self) -> str:
        """The quickest point."""
        return min(
            self.policy.points, key=lambda one: self.speeds.line(one.name).seconds(self.policy.largest)
        ).name

    def _clear_in(self) -> float:
        """Return the seconds after which the queue will be empty, if nothing else comes."""
        if not self.waiting:
            return 0.1
        now = time.monotonic()
        return max(
            0.1, self.speeds.seconds(self.cheapest, Load.of(self.waiting), now) / max(1, self.team.alive)
        )

    def _moment(self, now: float, waiting: Sequence[Waiting]) -> Moment:
        free = self.team.free_at(now) or [now]
        return Moment(now, waiting, free, self.arrivals.now(now), self.bounds.promise or 0.0)

    def _shed(self) -> None:
        """Refuse images that were accepted and cannot be in time any more: they would make others late."""
        now = time.monotonic()
        late = [
            one
            for one in self.waiting
            if one.deadline < now + self.speeds.at_best(one.point or self.cheapest, Load.of([one]))
        ]
        self._leave(late)
        for one in late:
            if not one.answer.done():
                self._missed(LATE, [one])
        sentence = "The server became slower while this image waited, and is too late. Try again later."
        refuse(late, Refused(sentence, LATE, self._clear_in()))

    def _missed(self, why: str, images: Sequence[Waiting]) -> None:
        self.counts.refused(why, len(images))
        for one in images:
            if why != "never":
                self._learn(one, False)

    def _learn(self, one: Waiting, in_time: bool) -> None:
        """Tell the policy whether the promise was kept; a deadline of a request's own says nothing about it."""
        if one.wanted.seconds is None:
            self.policy.learned(in_time)

    def _leave(self, images: Sequence[Waiting]) -> None:
        if images:
            self.waiting = without(self.waiting, images)
            self._bytes -= sum(len(one.sent.picture.data) for one in images)

    def _next_batch(self) -> None:
        now = time.monotonic()
        decision = self.policy.decide(self._moment(now, self.waiting))
        images = next_alike(self.waiting, decision.count)
        self._leave(images)
        worker = self.team.take()
        load = Load.of(images)
        expected = self.speeds.seconds(decision.point, load, now)
        worker.free_at = now + expected
        task = asyncio.create_task(
            self._compute(worker, decision, images, Seen(decision.point, load, 0, 0, 0, expected))
        )
        self._batches.add(task)
        self.computing += len(images)
        task.add_done_callback(lambda ended: self._ended(ended, images))

    def _ended(self, batch: asyncio.Task[None], images: Sequence[Waiting]) -> None:
        """Forget a batch; if it failed in a way that nobody thought of, nobody must wait for it."""
        self._batches.discard(batch)
        if batch.cancelled() or batch.exception() is not None:
            refuse(images, Refused("The server failed at this batch. Try again.", "failed", 1.0))
            if not batch.cancelled():
                getLogger(__name__).error("A batch failed.", exc_info=batch.exception())

    async def _compute(
        self, worker: WorkerProcess, decision: Decision, images: Sequence[Waiting], batch: Seen
    ) -> None:
        began = time.monotonic()
        message = Batch(decision.point, images[0].wanted.options, tuple(one.sent.picture for one in images))
        try:
            done: Done = await worker.ask(message, max(STUCK, self.bounds.seconds))
        except WorkerGone:
            self.computing -= len(images)
            self.team.lost(worker)
            self._again(images)
            self._refuse_waiting()
            return
        ended = time.monotonic()
        self.computing -= len(images)
        self.team.give(worker)
        if done.refused:
            refuse(images, Refused(done.refused, "options"))
            return
        batch = batch._replace(decode=done.decode, network=done.network, whole=ended - began)
        self.speeds.saw(batch, pixels_of(images), ended)
        self._tell(images, done, batch, began)

    def _tell(self, images: Sequence[Waiting], done: Done, batch: Seen, began: float) -> None:
        answered, ended = [], began + batch.whole
        beyond = batch.whole - batch.decode - batch.network
        for one, told in zip(images, done.answers, strict=True):
            # The way to the worker and back is waiting, too: the three times add up to all.
            queue = began - one.arrived + beyond
            found = Answered(told, batch.point, len(images), queue, batch.decode, batch.network)
            answered.append(found)
            self._learn(one, ended <= one.deadline)
            if not one.answer.done():
                one.answer.set_result(found)
        self.counts.computed(batch, answered)

    def _refuse_waiting(self) -> None:
        """Refuse what cannot wait until a worker is started again, if there is no other one."""
        soon = time.monotonic() + RESTART
        lost = [] if self.team.alive else [one for one in self.waiting if one.deadline < soon]
        self._leave(lost)
        refuse(lost, _restarting())

    def _again(self, images: Sequence[Waiting]) -> None:
        """Put the images of a worker that ended back into the queue; one that ends workers is given up."""
        for one in images:
            one.tries += 1
            if one.answer.done():
                continue
            if one.tries < TRIES:
                self.waiting.append(one)
                self._bytes += len(one.sent.picture.data)
            else:
                told = Told(error=f"{one.sent.picture.name} ended the process that computed it, twice.")
                one.answer.set_result(Answered(told, "", 1, 0.0, 0.0, 0.0))
        self.waiting.sort(key=lambda one: one.deadline)
        self._wake.set()


def _restarting() -> Refused:
    return Refused("The worker ended and is being started again. Try again in some seconds.", "restart", 5)
