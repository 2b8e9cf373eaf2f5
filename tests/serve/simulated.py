"""A machine without a clock of its own: policy, speeds and arrivals of the server, and pretended batches."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from vitrail.serve.arrivals import ArrivalRate
from vitrail.serve.policy import Moment, Point, SlackFit, next_alike, without
from vitrail.serve.speeds import BASE_PIXELS, Line, Load, Seen, Speeds

LINES = {
    "whole": Line(0.0245, 0.002),
    "half": Line(0.0112, 0.0065),
    "third": Line(0.0095, 0.005),
    "quarter": Line(0.0074, 0.0035),
}
GOOD = {"whole": 76.6, "half": 76.0, "third": 73.9, "quarter": 72.4}
PIXELS, DECODING, AROUND = 190_000, 0.004, 0.001
SIZES = (1, 2, 4, 8)


@dataclass(eq=False)
class Image:
    """An image that waits."""

    at: float
    deadline: float
    decode: float
    point: str = ""
    group: Hashable = ""
    work: float = 1.0


@dataclass
class Served:
    """What a simulation did: answers (image, its point, when), batches (when, point, images), and what was refused."""

    answers: list[tuple[Image, str, float]] = field(default_factory=list)
    batches: list[tuple[float, str, list[Image]]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    shed: int = 0

    @property
    def in_time(self) -> float:
        """The share of all images that were answered in time."""
        right = sum(end <= image.deadline for image, _, end in self.answers)
        return right / (len(self.answers) + len(self.refused) + self.shed)

    @property
    def good(self) -> float:
        """The mean score of the points of the answers in time."""
        return float(np.mean([GOOD[point] for image, point, end in self.answers if end <= image.deadline]))


def speeds_of(names: Sequence[str]) -> Speeds:
    return Speeds({name: LINES[name] for name in names}, SIZES, DECODING / (PIXELS + BASE_PIXELS))


class Machine:
    """One worker that takes `slow(time)` times as long as it was measured, with noise (log-normal)."""

    def __init__(
        self,
        names: Sequence[str] = tuple(LINES),
        promise: float = 0.1,
        largest: int = 16,
        noise: float = 0.08,
        slow: Callable[[float], float] = lambda now: 1.0,
    ) -> None:
        self.promise, self.noise, self.slow = promise, noise, slow
        self.speeds = speeds_of(names)
        self.policy = SlackFit([Point(name, GOOD[name]) for name in names], self.speeds, largest)
        self.arrivals, self.served = ArrivalRate(), Served()
        self._waiting: list[Image] = []
        self._draw = np.random.default_rng(0)

    def serve(
        self, times: Sequence[float], wants: Callable[[int], dict[str, object]] = lambda number: {}
    ) -> Served:
        """Serve images that come at these times; `wants` says what each one asks for."""
        coming = [
            Image(at, at + self.promise, DECODING, **wants(number))  # type: ignore[arg-type]
            for number, at in enumerate(times)
        ]
        now, place, busy = 0.0, 0, None
        while place < len(coming) or self._waiting or busy:
            if busy and (place == len(coming) or busy[0] <= coming[place].at):
                now, images, seen = busy
                busy = None
                self._answered(now, images, seen)
            elif place < len(coming):
                now = coming[place].at
                self._offer(now, coming[place], busy[1:] if busy else None)
                place += 1
            if not busy and self._waiting:
                busy = self._batch(now)
        return self.served

    def _offer(self, now: float, image: Image, busy: object) -> None:
        self.arrivals.came(now, 1)
        waiting = sorted([*self._waiting, image], key=lambda one: one.deadline)
        free = max(now, self._free) if busy else now
        idle = not busy and not self._waiting
        if idle or self.policy.admits(Moment(now, waiting, [free], self.arrivals.now(now), self.promise)):
            self._waiting = waiting
        else:
            self.served.refused.append(now)
            self.policy.learned(False)

    def _batch(self, now: float):
        speeds = self.speeds
        alive = [
            one
            for one in self._waiting
            if one.deadline >= now + speeds.at_best(one.point or self.policy.cheapest, Load.of([one]))
        ]
        for _ in range(len(self._waiting) - len(alive)):
            self.served.shed += 1
            self.policy.learned(False)
        self._waiting = alive
        if not alive:
            return None
        decision = self.policy.decide(Moment(now, alive, [now], self.arrivals.now(now), self.promise))
        images = next_alike(alive, decision.count)
        self._waiting = without(alive, images)
        load = Load.of(images)
        expected = speeds.seconds(decision.point, load, now)
        factor = self.slow(now)
        decode = factor * self._jitter() * DECODING * len(images)
        network = factor * self._jitter() * LINES[decision.point].seconds(len(images))
        whole = decode + network + AROUND
        self._free = now + expected
        self.served.batches.append((now, decision.point, images))
        return now + whole, images, Seen(decision.point, load, decode, network, whole, expected)

    def _answered(self, now: float, images: Sequence[Image], seen: Seen) -> None:
        for image in images:
            self.served.answers.append((image, seen.point, now))
            self.policy.learned(now <= image.deadline)
        self.speeds.saw(seen, {"JPEG": (PIXELS + BASE_PIXELS) * len(images)}, now)

    def _jitter(self) -> float:
        return float(self._draw.lognormal(0, self.noise))


def poisson(rate: float, seconds: float, seed: int = 1) -> list[float]:
    """Return times of arrivals at this rate."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, int(2 * rate * seconds) + 100)
    times = np.cumsum(gaps)
    return [float(one) for one in times[times < seconds]]
