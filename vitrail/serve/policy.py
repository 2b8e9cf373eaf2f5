"""Which images are computed next, and at which operating point: one decision at each batch.

The most accurate (point, batch size) that fits the time left to the most urgent image, like SlackFit of SuperServe
(Khare et al., NSDI 2025), with two conditions more, so that what was accepted is also answered: the other images that
wait, and those that will come meanwhile, must still be answerable at the cheapest point. No torch here.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import sqrt
from typing import NamedTuple, Protocol, TypeVar

from vitrail.serve.speeds import Costs, Load, Speeds

FORETOLD = 2.0
"""Standard deviations of the number of images that may come during a batch, beyond their mean."""

ROOM = (0.4, 0.6, 1.0)
"""Share of the promise in which a batch and the images that may come meanwhile must fit: least, at the start, most.

With all of it, as SlackFit would have it, each idle moment is spent on accuracy and the next burst finds no room."""

MISSED = 0.01
"""Share of images that may be late or refused: each one takes room away, and so many others in time give it back."""

STEP = 0.05
"""What an image that is late or refused takes away of the room."""

SUSTAINED = 0.9
"""Largest share of the time that a point may need for the images that come: above it a queue builds up.

A steady middle point is more accurate than turns of the best and the cheapest one (docs/benchmarks.md)."""


class Point(NamedTuple):
    """An operating point that a server answers at: its name, and its score (higher is better), for comparison."""

    name: str
    good: float


class Task(Costs, Protocol):
    """An image that waits: what it costs, its deadline, and the operating point that its request names, if any."""

    @property
    def deadline(self) -> float:
        """When its answer is due."""
        ...

    @property
    def point(self) -> str:
        """The operating point that its request names; empty if any will do."""
        ...

    @property
    def group(self) -> Hashable:
        """What the images of a batch have in common: point and options."""
        ...


AnyTask = TypeVar("AnyTask", bound=Task)


class Arrivals(NamedTuple):
    """How images come: a second so many, with this variance of the number relative to a Poisson process (CV²)."""

    rate: float = 0.0
    burst: float = 1.0

    def most(self, seconds: float) -> float:
        """Return how many images may come in this time."""
        mean = self.rate * seconds
        return mean + FORETOLD * sqrt(self.burst * mean)


class Moment(NamedTuple):
    """The state of a server: the time, the images that wait (most urgent first), and the arrivals.

    `free_at` is when each worker is free; `promise` is the time that a request gets without a deadline of its own.
    """

    now: float
    waiting: Sequence[Task]
    free_at: Sequence[float]
    arrivals: Arrivals
    promise: float


@dataclass(frozen=True, slots=True)
class Decision:
    """The next batch: the most urgent image and the next ones of its group, so many, at this operating point."""

    point: str
    count: int


class Policy(Protocol):
    """Decides what is computed next."""

    points: Sequence[Point]
    largest: int

    def decide(self, moment: Moment) -> Decision:
        """Return the next batch."""
        ...

    def admits(self, moment: Moment) -> bool:
        """Tell whether all images that wait can be answered in time."""
        ...

    def learned(self, in_time: bool) -> None:
        """Note that an image was answered in time, or was late or refused."""
        ...


class SlackFit:
    """The policy of the server. `points`: the most accurate first; `largest`: images of a batch at most."""

    def __init__(self, points: Sequence[Point], speeds: Speeds, largest: int) -> None:
        self.points, self.speeds, self.largest = points, speeds, largest
        self.cheapest = min(points, key=lambda one: speeds.line(one.name).seconds(largest)).name
        self.room = ROOM[1]

    def decide(self, moment: Moment) -> Decision:
        """Return the most accurate batch that leaves every image its time; of equals, the larger one.

        If there is none, the cheapest point computes as many images as are in time.
        """
        first, alike = moment.waiting[0], next_alike(moment.waiting, self.largest)
        names = [first.point] if first.point else [one.name for one in self.points]
        for name in names:
            if name != self.cheapest and not self._sustained(moment, name, Load.of(alike)):
                continue
            for count in _sizes(len(alike)):
                if self._fits(moment, name, alike[:count]):
                    return Decision(name, count)
        cheapest = first.point or self.cheapest
        return Decision(cheapest, self._in_time(moment, cheapest, alike))

    def admits(self, moment: Moment) -> bool:
        """Tell whether all images that wait can be answered in time at the cheapest point."""
        return feasible(moment, self.speeds, self.cheapest, self.largest)

    def learned(self, in_time: bool) -> None:
        """Give the images that may come more room if one was late or refused, and less if it was in time."""
        change = MISSED * STEP if in_time else -STEP
        self.room = min(ROOM[2], max(ROOM[0], self.room + change))

    def _fits(self, moment: Moment, name: str, batch: Sequence[Task]) -> bool:
        """Tell whether a batch is in time, and leaves time for the others that wait and that may come meanwhile."""
        now, load = moment.now, Load.of(batch)
        seconds = self.speeds.seconds(name, load, now)
        if now + seconds > batch[0].deadline:
            return False
        others = without(moment.waiting, batch)
        if (
            name != self.cheapest
            and moment.promise
            and not self._leaves_room(moment, load, seconds, len(others))
        ):
            return False
        rest = moment._replace(waiting=others, free_at=[*_after(moment), now + seconds])
        return feasible(rest, self.speeds, self.cheapest, self.largest)

    def _leaves_room(self, moment: Moment, load: Load, seconds: float, others: int) -> bool:
        """Tell whether the images that may come during a batch of so many seconds could be answered after it."""
        workers = len(moment.free_at)
        left = (moment.arrivals.most(seconds) + others) / workers
        some = max(1, round(min(self.largest, left)))
        after = left / some * self.speeds.seconds(self.cheapest, load.times(some), moment.now)
        return seconds + after <= self.room * moment.promise

    def _sustained(self, moment: Moment, name: str, load: Load) -> bool:
        """Tell whether a point keeps up with the images that come, in batches that half of the promise allows."""
        if not moment.promise:
            return True
        share = 0.0
        for count in reversed(_sizes(self.largest)):
            seconds = self.speeds.usual(name, load.times(count), moment.now)
            if count > 1 and seconds > moment.promise / 2:
                break
            share = moment.arrivals.rate * seconds / count / len(moment.free_at)
        return share <= SUSTAINED

    def _in_time(self, moment: Moment, name: str, alike: Sequence[Task]) -> int:
        """Return how many images a late server computes next: all that keep the most urgent one in time, or all."""
        for count in _sizes(len(alike)):
            load = Load.of(alike[:count])
            if moment.now + self.speeds.seconds(name, load, moment.now) <= alike[0].deadline:
                return count
        return len(alike)


def feasible(moment: Moment, speeds: Speeds, cheapest: str, largest: int) -> bool:
    """Tell whether all images that wait are in time if only the cheapest point is used from now on.

    One batch may take longer than usual, but not each of a row of them.
    """
    free = sorted(max(moment.now, one) for one in moment.free_at)
    for part in _batches(moment.waiting, largest):
        point, load = part[0].point or cheapest, Load.of(part)
        if free[0] + speeds.seconds(point, load, moment.now) > part[0].deadline:
            return False
        free = sorted([*free[1:], free[0] + speeds.usual(point, load, moment.now)])
    return True


def next_alike(waiting: Sequence[AnyTask], most: int) -> list[AnyTask]:
    """Return the most urgent image and the next ones of its group, which may share its batch: so many at most."""
    group = waiting[0].group
    return list(islice((one for one in waiting if one.group == group), most))


def without(waiting: Sequence[AnyTask], batch: Sequence[AnyTask]) -> list[AnyTask]:
    """Return the images that wait when those of a batch have gone, in the same order."""
    gone = set(map(id, batch))
    return [one for one in waiting if id(one) not in gone]


def _batches(waiting: Sequence[Task], largest: int) -> list[list[Task]]:
    """Return the batches that images make, each of one group, the most urgent first."""
    groups: dict[Hashable, list[Task]] = {}
    for one in waiting:
        groups.setdefault(one.group, []).append(one)
    parts = [group[i : i + largest] for group in groups.values() for i in range(0, len(group), largest)]
    return sorted(parts, key=lambda part: part[0].deadline)


def _after(moment: Moment) -> list[float]:
    """Return when the other workers are free, if the one that is free first takes a batch."""
    return sorted(moment.free_at)[1:]


def _sizes(most: int) -> list[int]:
    """Return the batch sizes to try, the largest first."""
    sizes = {most, *(size for size in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64) if size < most)}
    return sorted(sizes, reverse=True)
