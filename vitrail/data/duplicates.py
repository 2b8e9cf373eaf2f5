"""Find duplicate images: equal bytes, equal pixels, or almost equal appearance."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.data.image_facts import GREY_SIDE, Facts

MOST_BITS = 4
"""Images whose sketches differ in more bits are not compared further."""

LEAST_CORRELATION = 0.99
"""Images whose grey versions correlate at least this much are near-duplicates."""

_BANDS = (
    (0, 13),
    (13, 13),
    (26, 13),
    (39, 12),
    (51, 12),
)  # (shift, bits): one band more than the number of bits that may differ
_BLOCK = 4096

Grey = Callable[[int], NDArray[np.uint8]]


class Alike(NamedTuple):
    """Groups of indices of duplicate images: `equal` in content, `similar` in appearance.

    A similar group contains equal groups as a whole, and no image is in two groups of the same kind.
    """

    equal: list[list[int]]
    similar: list[list[int]]


def find_duplicates(facts: Sequence[Facts], grey: Grey, workers: int = 1) -> Alike:
    """Group equal and similar images; `grey(i)` returns the grey image (64, 64), needed only for a few."""
    equal = _same(["" if one.error else one.hash for one in facts]) + _same([one.pixels for one in facts])
    equal_groups = components(len(facts), [pair for group in equal for pair in pairwise(group)])
    first = {i: group[0] for group in equal_groups for i in group}
    chosen = [
        i for i, one in enumerate(facts) if one.sketch and first.get(i, i) == i
    ]  # one of each equal group
    sketches = np.array([facts[i].sketch for i in chosen], np.uint64)
    pairs = [(chosen[a], chosen[b]) for a, b in neighbours(sketches)]
    confirmed = list(_confirmed(pairs, grey, workers))
    links = confirmed + [pair for group in equal_groups for pair in pairwise(group)]
    touched = {i for pair in confirmed for i in pair}
    similar = [group for group in components(len(facts), links) if touched.intersection(group)]
    return Alike(equal_groups, similar)


def _same(keys: Sequence[str]) -> list[list[int]]:
    alike: dict[str, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        if key:
            alike[key].append(i)
    return [group for group in alike.values() if len(group) > 1]


def neighbours(sketches: NDArray[np.uint64], most: int = MOST_BITS) -> list[tuple[int, int]]:
    """Return all pairs of sketches that differ in at most 4 bits, without comparing all pairs.

    At least one of the five bands is equal in such a pair, so only sketches with an equal band are compared.
    """
    assert most < len(_BANDS)
    pairs: set[tuple[int, int]] = set()
    for shift, bits in _BANDS:
        keys = (sketches >> np.uint64(shift)) & np.uint64((1 << bits) - 1)
        order = np.argsort(keys, kind="stable")
        keys, sorted_sketches = keys[order], sketches[order]
        at, step = np.arange(len(order)), 1
        while True:
            at = at[at + step < len(order)]
            at = at[keys[at] == keys[at + step]]
            if not at.size:
                break
            near = at[np.bitwise_count(sorted_sketches[at] ^ sorted_sketches[at + step]) <= most]
            pairs.update(
                (min(a, b), max(a, b))
                for a, b in zip(order[near].tolist(), order[near + step].tolist(), strict=True)
            )
            step += 1
    return sorted(pairs)


def _confirmed(pairs: list[tuple[int, int]], grey: Grey, workers: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs whose grey images correlate enough."""
    if not pairs:
        return
    ids = sorted({i for pair in pairs for i in pair})
    at = {one: i for i, one in enumerate(ids)}
    try:
        views = _in_file(ids, grey, workers)
    except OSError:  # the temporary file cannot be written: use memory
        views = np.stack([view.ravel() for view in _greys(ids, grey, workers)])
    for start in range(0, len(pairs), _BLOCK):
        block = pairs[start : start + _BLOCK]
        one, other = (_normed(views[[at[pair[side]] for pair in block]]) for side in (0, 1))
        alike = np.einsum("ij,ij->i", one, other) >= LEAST_CORRELATION
        yield from (pair for pair, yes in zip(block, alike, strict=True) if yes)


def _greys(ids: list[int], grey: Grey, workers: int) -> Iterator[NDArray[np.uint8]]:
    """Yield grey images (64, 64), computed block by block."""
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(ids), _BLOCK):
            yield from pool.map(grey, ids[start : start + _BLOCK])


def _in_file(ids: list[int], grey: Grey, workers: int) -> NDArray[np.uint8]:
    """Return grey images (n, 64 · 64) in a temporary file, to save memory."""
    with tempfile.TemporaryFile() as file:
        for view in _greys(ids, grey, workers):
            file.write(view.tobytes())
        file.flush()
        return np.memmap(file, np.uint8, "r", shape=(len(ids), GREY_SIDE * GREY_SIDE))


def _normed(views: NDArray[np.uint8]) -> NDArray[np.float32]:
    values = views.astype(np.float32)
    values -= values.mean(1, keepdims=True)
    normed: NDArray[np.float32] = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
    return normed


def components(number: int, links: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the connected components with two or more members, each sorted."""
    leader = list(range(number))

    def top(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    for a, b in links:
        low, high = sorted((top(a), top(b)))
        leader[high] = low
    groups: dict[int, list[int]] = defaultdict(list)
    for i in sorted({i for link in links for i in link}):
        groups[top(i)].append(i)
    return [group for group in groups.values() if len(group) > 1]
