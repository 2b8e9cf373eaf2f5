"""Decodes every file once and says what is wrong, what was done about it, and what to do."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data import findings as say
from vitrail.data import twins
from vitrail.data.decode import glance
from vitrail.data.findings import Finding
from vitrail.data.layouts import Entry, Layout
from vitrail.data.look import LEAST_SIDE, Facts, Memory, grey, look, named
from vitrail.data.manifest import KEPT, QUARANTINED, Row
from vitrail.data.names import count, natural, some
from vitrail.data.source import read

Progress = Callable[[int, int], None]

_CHUNK = 256  # pictures between two notes to disk
_FEW, _TENTH = 3, 10


@dataclass(frozen=True)
class Report:
    """What the doctor found: one row a picture with its state, group and hash, and the findings, grave ones first."""

    rows: tuple[Row, ...] = field(repr=False)
    findings: tuple[Finding, ...]
    sizes: tuple[
        tuple[int, int], ...
    ] = ()  # the (height, width) of the smallest, the median and the largest picture

    def lines(self) -> list[str]:
        """Return the findings in plain words; of many conflicts the first three, and how many more there are."""
        conflicts = [finding for finding in self.findings if finding.kind == "conflict"]
        lines = [finding.text for finding in self.findings if finding not in conflicts[_FEW:]]
        more = len(conflicts) - _FEW
        if more > 0:
            lines.insert(_FEW, f"{count(more, 'more picture')} with different labels, all named by --json.")
        return lines

    def of(self, kind: str) -> tuple[str, ...]:
        """Return the ids that findings of one kind name."""
        return tuple(one for finding in self.findings if finding.kind == kind for one in finding.ids)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        states = Counter(row.state for row in self.rows)
        names = ("least", "median", "greatest")
        return {
            "pictures": len(self.rows),
            "kept": states[KEPT],
            "quarantined": states[QUARANTINED],
            "sizes": {name: list(size) for name, size in zip(names, self.sizes, strict=False)},
            "findings": [finding.to_dict() for finding in self.findings],
        }


def examine(
    layout: Layout | Sequence[Entry],
    root: Path | None = None,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Decode every picture of a layout once, on all cores, and report; nothing of the data is changed.

    `cache` is a file that remembers by content what was seen, so that a second check, or one that was killed,
    decodes only what is new.

    Raises:
        DataError: two entries share an id, or no picture at all could be read.
    """
    entries = list(layout) if isinstance(layout, Sequence) else list(layout.entries())
    base = root if root is not None else Path() if isinstance(layout, Sequence) else layout.root
    _refuse_twice(entries)
    memory = Memory(cache)
    try:
        facts = list(_look_all(entries, base, memory, progress))
    finally:
        memory.close()
    if all(one.error for one in facts):
        first = facts[0].error if facts else "there is none"
        raise DataError(f"None of {count(len(facts), 'picture')} can be read, the first because: {first}")
    rows = [_row(entry, one) for entry, one in zip(entries, facts, strict=True)]
    broken = list(say.unreadable(rows))
    rows, alike = _tie(rows, facts, base)
    found = [*broken, *alike, *say.pictures(rows, facts), *say.classes(rows)]
    return Report(tuple(rows), tuple(sorted(found, key=lambda finding: not finding.grave)), _sizes(facts))


def workers() -> int:
    """Return how many threads look at pictures: Pillow decodes outside the interpreter's lock."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _refuse_twice(entries: Sequence[Entry]) -> None:
    tally = Counter(entry.id for entry in entries)
    twice = [one for one, number in tally.items() if number > 1]
    if twice:
        raise DataError(f"{some(twice)} stands in the data more than once. Name every picture once.")


def _look_all(
    entries: Sequence[Entry], root: Path, memory: Memory, progress: Progress | None
) -> Iterator[Facts]:
    def look_at(entry: Entry) -> Facts:
        if entry.trouble:
            return Facts(error=f"{entry.path} {entry.trouble}.")
        return look(root, entry.path, memory)

    done, todo = 0, iter(entries)
    with ThreadPoolExecutor(workers()) as pool:
        while chunk := list(islice(todo, _CHUNK)):
            seen = list(pool.map(look_at, chunk))
            memory.keep()
            done += len(chunk)
            if progress is not None:
                progress(done, len(entries))
            yield from (named(one, entry.path) for one, entry in zip(seen, chunk, strict=True))


def _row(entry: Entry, facts: Facts) -> Row:
    state = QUARANTINED if facts.error else KEPT
    return Row(entry.id, entry.path, entry.label, entry.split, entry.group, facts.hash, state, facts.error)


def _tie(rows: list[Row], facts: Sequence[Facts], root: Path) -> tuple[list[Row], list[Finding]]:
    """Tie twins to one group, keep out those whose labels contradict each other, and say so.

    At most one of two labels of the same picture is right, and nobody here knows which: a network taught both
    learns neither. Pictures that are only similar stay: their difference may be what the labels are about.
    """

    def grey_of(i: int) -> NDArray[np.uint8]:
        return grey(glance(read(root, rows[i].path), rows[i].path, LEAST_SIDE)[0])

    alike = twins.find(facts, grey_of, workers())
    sizes = Counter(one for row in rows for one in row.labels)
    wide = [group for group in alike.similar if _is_wide([rows[i] for i in group], sizes)]
    similar = [group for group in alike.similar if group not in wide]
    merged = twins.components(len(rows), [(g[0], i) for g in (*alike.equal, *similar) for i in g[1:]])
    clashing = [group for group in alike.equal if len({rows[i].label for i in group}) > 1]
    clashed = {i for group in clashing for i in group}
    harmless = [group for group in alike.equal if group[0] not in clashed]
    doubtful = [g for g in similar if len({rows[i].label for i in g if i not in clashed}) > 1]
    tied = _grouped(rows, merged)
    for group in clashing:
        for i in group:
            other = next(rows[j] for j in group if rows[j].label != rows[i].label)
            reason = f"the same picture is labelled {other.label!r} as {other.id}"
            tied[i] = tied[i]._replace(state=QUARANTINED, reason=reason)
    found = [
        *say.conflicts(tied, clashing),
        *say.doubtful(rows, doubtful),
        *say.leaks(rows, merged),
        *say.twins(rows, harmless, similar, wide),
    ]
    return tied, found


def _is_wide(group: Sequence[Row], sizes: Counter[str]) -> bool:
    """Tell a chain of look-alikes that would tie up more than a tenth of a class: it is no twin group."""
    least = min((sizes[one] for row in group for one in row.labels), default=0)
    return len(group) > max(_FEW, least / _TENTH)


def _grouped(rows: Sequence[Row], merged: Sequence[Sequence[int]]) -> list[Row]:
    """Write one group name into all rows that twins or named groups tie together."""
    members: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if row.group:
            members.setdefault(row.group, []).append(i)
    links = [(group[0], i) for group in (*merged, *members.values()) for i in group[1:]]
    tied = list(rows)
    for group in twins.components(len(rows), links):
        named = sorted({rows[i].group for i in group} - {""}, key=natural)
        name = named[0] if named else f"twins:{rows[group[0]].id}"
        for i in group:
            tied[i] = tied[i]._replace(group=name)
    return tied


def _sizes(facts: Sequence[Facts]) -> tuple[tuple[int, int], ...]:
    sizes = sorted((one.size for one in facts if not one.error), key=lambda size: size[0] * size[1])
    middle = (round(median(h for h, _ in sizes)), round(median(w for _, w in sizes)))
    return sizes[0], middle, sizes[-1]
