"""The usual way to give accuracy for speed, beside which `bench.serve` puts ours: a governor of the queue's length.

`python -m bench.queue_governor RUN --port 8000 --latency 100ms` is `vitrail serve` with this policy instead of its own.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from vitrail.core.environment import cores
from vitrail.infer.predict_options import read_latency
from vitrail.serve.front import Front, Service
from vitrail.serve.messages import Model
from vitrail.serve.policy import Decision, Moment, Point, feasible
from vitrail.serve.server import Place, serve
from vitrail.serve.speeds import Speeds

HIGH, LOW = 2, 2
"""Waiting images above which the governor goes to a cheaper point, and below which to a more accurate one."""


class QueueGovernor:
    """Steps along the points by the number of images that wait, one step a batch.

    It knows no deadline, but admits what the server's own policy would admit, so that only the choice of points
    differs. `points`: the most accurate first, each next one quicker. `largest`: images of a batch at most.
    """

    def __init__(
        self, points: Sequence[Point], speeds: Speeds, largest: int, high: int = HIGH, low: int = LOW
    ) -> None:
        self.points, self.speeds, self.largest, self.high, self.low = points, speeds, largest, high, low
        self.place = 0

    def decide(self, moment: Moment) -> Decision:
        """Return the next batch: as many images as wait, at the point of the moment."""
        waiting = len(moment.waiting)
        if waiting > self.high:
            self.place = min(self.place + 1, len(self.points) - 1)
        elif waiting < self.low:
            self.place = max(self.place - 1, 0)
        return Decision(self.points[self.place].name, min(waiting, self.largest))

    def admits(self, moment: Moment) -> bool:
        """Tell whether all images that wait can be answered in time at the cheapest point."""
        return feasible(moment, self.speeds, self.points[-1].name, self.largest)

    def learned(self, in_time: bool) -> None:
        """Learn nothing."""


def main() -> None:
    words = argparse.ArgumentParser(prog="bench.queue_governor", description=__doc__)
    words.add_argument("run")
    words.add_argument("--port", type=int, default=8000)
    words.add_argument("--latency", required=True)
    options = words.parse_args()
    model = Model(options.run, in_time=True, threads=cores())
    front = Front(Service(model, read_latency(options.latency) / 1000), QueueGovernor)
    asyncio.run(serve(front, Place(port=options.port), lambda link, _: print(link, flush=True)))


if __name__ == "__main__":
    main()
