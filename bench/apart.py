"""Things timed in turn, each in a process of its own: none changes how another's process allocates or compiles."""

from __future__ import annotations

import multiprocessing as mp
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from multiprocessing.connection import Connection

from bench.pairs import in_turn


def _serve(make: Callable[[], Callable[[], object]], pipe: Connection) -> None:
    run = make()
    while pipe.recv():
        began = time.perf_counter()
        run()
        pipe.send(time.perf_counter() - began)


class Apart:
    """A thing that runs in a process of its own whenever it is called."""

    def __init__(self, make: Callable[[], Callable[[], object]]) -> None:
        context = mp.get_context("spawn")
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=_serve, args=(make, there), daemon=True)
        self.process.start()

    def __call__(self) -> None:
        """Run once and wait."""
        self.pipe.send(True)
        self.pipe.recv()

    def close(self) -> None:
        """End the process."""
        self.pipe.send(False)
        self.process.join()


def apart_in_turn(
    makers: Mapping[str, Callable[[], Callable[[], object]]], rounds: int
) -> dict[str, list[float]]:
    """Run each thing once a round, in its own process, the others waiting; returns seconds, round by round."""
    with ExitStack() as stack:
        things: dict[str, Callable[[], object]] = {}
        for name, make in makers.items():
            things[name] = one = Apart(make)
            stack.callback(one.close)
        return in_turn(things, rounds)
