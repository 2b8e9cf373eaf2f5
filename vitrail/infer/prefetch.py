"""Read images for a network: in advance if it runs on a GPU, in turns if it runs on the same CPU cores."""

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
    """Yield make(item) for every item, in order, computed in worker threads, at most `most` items ahead."""
    source = iter(items)
    first = list(islice(source, 2))
    if len(first) < 2:  # nothing to overlap with
        yield from map(make, first)
        return
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(max(1, processes(-1)), initializer=_single_thread) as pool:
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
    """Yield make(item) for every item, in order, computed `size` at a time on all cores while the caller waits.

    A network on the CPU waits for its slowest core; a core that also decodes delays all of them (docs/benchmarks.md).
    """
    source = iter(items)
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=_single_thread) as pool:
            while some := list(islice(source, size)):
                made = list(pool.map(make, some)) if len(some) > 1 else [make(some[0])]
                torch.set_num_threads(threads)  # the count that threads of others will begin with
                yield from made
    finally:
        torch.set_num_threads(threads)


def _single_thread() -> None:
    # A reader that uses all cores for its resize takes them away from the network.
    torch.set_num_threads(1)
