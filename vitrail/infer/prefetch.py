"""Reading for a network: ahead of it where it computes elsewhere, by turns where it computes on the same cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

from vitrail.data.loader import processes

Given = TypeVar("Given")
Made = TypeVar("Made")


def prefetch(make: Callable[[Given], Made], items: Iterable[Given], most: int) -> Iterator[Made]:
    """Yield make(item) for every item, in order, computed in threads of its own, at most `most` items ahead."""
    source = iter(items)
    first = list(islice(source, 2))
    if len(first) < 2:  # nothing to overlap with
        yield from map(make, first)
        return
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(max(1, processes(-1)), initializer=_alone) as pool:
        waiting: deque[Future[Made]] = deque(pool.submit(make, one) for one in first)
        waiting.extend(pool.submit(make, one) for one in islice(source, most - 2))
        torch.set_num_threads(threads)  # the count that threads of others will begin with
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(make, one) for one in islice(source, 1))
        finally:
            pool.shutdown(cancel_futures=True)


def read_then_compute(make: Callable[[Given], Made], items: Iterable[Given], size: int) -> Iterator[Made]:
    """Yield make(item) for every item, in order, made `size` at a time by all cores, and none while the caller works.

    A network on the CPU waits for its slowest core; one that also decodes holds all of them up (docs/benchmarks.md).
    """
    source = iter(items)
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=_alone) as pool:
            while some := list(islice(source, size)):
                made = list(pool.map(make, some)) if len(some) > 1 else [make(some[0])]
                torch.set_num_threads(threads)  # the count that threads of others will begin with
                yield from made
    finally:
        torch.set_num_threads(threads)


def _alone() -> None:
    # A reader that splits its resize over all cores only takes them from the network.
    torch.set_num_threads(1)
