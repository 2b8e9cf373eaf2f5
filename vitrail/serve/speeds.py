"""How long a batch takes: l(point, n) = each · n + start, measured when a server starts and refitted with every batch.

What a batch takes beyond that is the same for all points: another program on the same cores, a slower clock. It is
one number, `pace`, so that a slow moment at one point is known for all of them at once. No torch here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple, Protocol

import numpy as np

PRIOR = 6.0
"""Weight of a measurement at the start, in batches: it never fades, or a point without requests would be forgotten."""

FADE = 0.98
"""What a batch weighs after the next one of its point."""

SWIFT = 0.4
"""Share of the newest batch in the pace."""

CALM = 2.0
"""Seconds after which an idle server believes half of what it knew of its pace."""

REMEMBERED, FEW = 60, 8
"""Batches from which the spread is taken, and the least number of them."""

CAREFUL = 97
"""A batch is expected to take as long as this percentile of the batches before it, relative to their expectation."""

SPREADS = (1.04, 2.5)
"""Bounds of the spread: the noise of few batches is not known, and one stalled batch says little."""

STALLED = 2.0
"""How many times as long as expected a batch decodes at most, for what is learned: one that stalled says little."""

BASE_PIXELS = 60_000
"""Cost of an image that does not depend on its size (opening, resizing), as pixels to decode."""


class Line(NamedTuple):
    """Seconds of the network for a batch of n images: each · n + start."""

    each: float
    start: float

    def seconds(self, count: float) -> float:
        """Return the seconds of a batch."""
        return self.each * count + self.start


def fit_line(times: Iterable[tuple[float, float, float]], least: float = 1e-6) -> Line:
    """Return the line through (n, seconds, weight) by least squares; neither number of it is negative."""
    n, seconds, weight = (np.array(one, float) for one in zip(*times, strict=True))
    mean_n, mean = np.average(n, weights=weight), np.average(seconds, weights=weight)
    spread = float(np.sum(weight * (n - mean_n) ** 2))
    slope = float(np.sum(weight * (n - mean_n) * (seconds - mean)) / spread) if spread > 0 else 0.0
    if slope <= 0 or mean - slope * mean_n < 0:  # through the origin: a batch costs at least its images
        return Line(max(least, float(mean / mean_n)), 0.0)
    return Line(slope, float(mean - slope * mean_n))


@dataclass(frozen=True, slots=True)
class Load:
    """What a batch is for a machine.

    `count`: images; `work`: inputs of the network, the same number but for images in windows; `decode`: expected
    seconds of one core to decode and resize them.
    """

    count: int
    work: float
    decode: float

    @classmethod
    def of(cls, images: Sequence[Costs]) -> Load:
        """Return the load of images."""
        return cls(len(images), sum(one.work for one in images), sum(one.decode for one in images))

    def times(self, count: int) -> Load:
        """Return the load of so many images of this kind."""
        return Load(count, count * self.work / self.count, count * self.decode / self.count)


class Costs(Protocol):
    """What one image costs, as in `Load`."""

    @property
    def work(self) -> float:
        """Inputs of the network."""
        ...

    @property
    def decode(self) -> float:
        """Seconds of one core."""
        ...


class Seen(NamedTuple):
    """A batch that was computed: its point and its load.

    `decode`, `network`: measured seconds, `whole`: seconds from its dispatch until its answers were back, `expected`:
    what was expected of `whole`.
    """

    point: str
    load: Load
    decode: float
    network: float
    whole: float
    expected: float


class _Fitted:
    """The line of one point, refitted: sums over batches that fade, and the measurement at the start."""

    def __init__(self, line: Line, sizes: Sequence[int]) -> None:
        self.line, self.first, self._start = (
            line,
            line,
            [(float(n), line.seconds(n), PRIOR / len(sizes)) for n in sizes],
        )
        self._seen: dict[int, tuple[float, float]] = {}  # by batch size: weight, mean seconds

    def add(self, count: int, seconds: float) -> None:
        """Add a batch and fit the line again."""
        self._seen = {n: (weight * FADE, mean) for n, (weight, mean) in self._seen.items()}
        weight, mean = self._seen.get(count, (0.0, 0.0))
        self._seen[count] = (weight + 1, (weight * mean + seconds) / (weight + 1))
        seen = [(float(n), mean, weight) for n, (weight, mean) in self._seen.items()]
        self.line = fit_line([*self._start, *seen])


class Speeds:
    """Expected seconds of batches at every point; `lines` are measured at `sizes`, `decoding` is seconds a pixel.

    `threads` decode at the same time.
    """

    def __init__(
        self, lines: Mapping[str, Line], sizes: Sequence[int], decoding: float, threads: int = 1
    ) -> None:
        self._points = {name: _Fitted(line, sizes) for name, line in lines.items()}
        self._rate, self._rates, self.threads = decoding, dict[str, float](), max(1, threads)
        self._ratios: deque[float] = deque(maxlen=REMEMBERED)
        self._pace, self.overhead, self._spread, self._last = 1.0, 0.001, SPREADS[0], 0.0

    def line(self, point: str) -> Line:
        """Return the line of a point, at the pace of the start."""
        return self._points[point].line

    def decoding(self, kind: str, pixels: int) -> float:
        """Return the seconds of one core that decoding and resizing an image takes, by its format."""
        return self._rates.get(kind, self._rate) * (pixels + BASE_PIXELS)

    def decode(self, load: Load) -> float:
        """Return the seconds for decoding a batch."""
        return load.decode / min(self.threads, max(1, load.count))

    def pace(self, now: float) -> float:
        """Return how much slower the machine is than at the start; without batches it is forgotten."""
        trust: float = 0.5 ** (max(0.0, now - self._last) / CALM)
        return 1 + (self._pace - 1) * trust

    def seconds(self, point: str, load: Load, now: float) -> float:
        """Return the seconds that a batch is expected to take at most, from its dispatch until its answers are back."""
        return self._spread * self.usual(point, load, now)

    def usual(self, point: str, load: Load, now: float) -> float:
        """Return the seconds that a batch usually takes."""
        return self.pace(now) * self._base(point, load) + self.overhead

    def at_best(self, point: str, load: Load) -> float:
        """Return the seconds of a batch on a machine as quiet as at the start.

        A slow time may have bent the line; what is refused for it would be refused for ever, as nothing is computed.
        """
        one = self._points[point]
        network = min(one.line.seconds(load.work), one.first.seconds(load.work))
        return network + self.decode(load) + self.overhead

    def _base(self, point: str, load: Load) -> float:
        return self._points[point].line.seconds(load.work) + self.decode(load)

    def saw(self, batch: Seen, kinds: Mapping[str, int], now: float) -> None:
        """Learn from a batch; `kinds` are the pixels of each format, with `BASE_PIXELS` for each image."""
        base = self._base(batch.point, batch.load)
        ratio = (batch.decode + batch.network) / max(base, 1e-6)
        self._pace = (1 - SWIFT) * self.pace(now) + SWIFT * min(20.0, max(0.2, ratio))
        self._last = now
        beyond = batch.whole - batch.decode - batch.network
        self.overhead += 0.1 * (min(0.02, max(0.0, beyond)) - self.overhead)
        if batch.expected > 0:
            self._ratios.append(min(SPREADS[1], batch.whole * self._spread / batch.expected))
            if len(self._ratios) >= FEW:
                self._spread = min(SPREADS[1], max(SPREADS[0], float(np.percentile(self._ratios, CAREFUL))))
        # A point is refitted without the pace, which is of the moment; a stalled batch says nothing about its line.
        typical = median(self._ratios) if self._ratios else 1.0
        if batch.network < 3 * typical * self._pace * self.line(batch.point).seconds(batch.load.work):
            self._points[batch.point].add(round(batch.load.work), batch.network / self._pace)
        if len(kinds) == 1:
            (kind, pixels), cores = *kinds.items(), min(self.threads, batch.load.count)
            rate = batch.decode * cores / self._pace / max(1, pixels)
            old = self._rates.get(kind, self._rate)
            self._rates[kind] = old + 0.1 * (min(rate, STALLED * old) - old)
