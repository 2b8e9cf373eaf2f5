"""Decodes every file once and says what is wrong, what was done about it, and what to do."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitrail.core.errors import DataError
from vitrail.data.decode import decode
from vitrail.data.layouts import Entry, Layout
from vitrail.data.manifest import KEPT, QUARANTINED, Row
from vitrail.data.names import count, natural, some
from vitrail.data.source import read

Progress = Callable[[int, int], None]

_CHUNK = 256  # pictures in flight: bounds memory, keeps every thread busy
TINY_CLASS = 10
IMBALANCE = 10


class Facts(NamedTuple):
    """What decoding one file told; `error` is empty where it decoded."""

    id: str
    hash: str = ""
    pixels: str = ""
    size: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()
    flat: bool = False
    error: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that was found: its kind, whom it touches, and a sentence that ends with what to do.

    `grave` findings keep pictures out or spoil scores; the others only say what was done.
    """

    kind: str
    text: str
    ids: tuple[str, ...] = ()
    grave: bool = False


@dataclass(frozen=True)
class Report:
    """What the doctor found: one row a picture with its state, group and hash, and the findings in order."""

    rows: tuple[Row, ...] = field(repr=False)
    findings: tuple[Finding, ...]

    def lines(self) -> list[str]:
        """Return the findings in plain words, grave ones first."""
        return [finding.text for finding in sorted(self.findings, key=lambda finding: not finding.grave)]

    def of(self, kind: str) -> tuple[str, ...]:
        """Return the ids that findings of one kind name."""
        return tuple(one for finding in self.findings if finding.kind == kind for one in finding.ids)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        states = Counter(row.state for row in self.rows)
        return {
            "pictures": len(self.rows),
            "kept": states[KEPT],
            "quarantined": states[QUARANTINED],
            "findings": [asdict(finding) | {"ids": list(finding.ids)} for finding in self.findings],
        }


def examine(
    layout: Layout | Sequence[Entry],
    root: Path | None = None,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Decode every picture of a layout once, on all cores, and report; nothing on disk is changed.

    Raises:
        DataError: two entries share an id, or no picture at all could be read.
    """
    entries = list(layout) if isinstance(layout, Sequence) else list(layout.entries())
    base = root if root is not None else Path() if isinstance(layout, Sequence) else layout.root
    _refuse_twice(entries)
    facts = list(_look_all(entries, base, progress))
    if all(one.error for one in facts):
        raise DataError(
            f"None of {count(len(facts), 'picture')} can be read, the first because: {facts[0].error}"
        )
    rows = [_row(entry, one) for entry, one in zip(entries, facts, strict=True)]
    broken = list(_unreadable(rows))
    rows, twins = _twins(rows, facts)
    return Report(tuple(rows), (*broken, *twins, *_noted(facts), *_classes(rows)))


def _refuse_twice(entries: Sequence[Entry]) -> None:
    twice = [one for one, number in Counter(entry.id for entry in entries).items() if number > 1]
    if twice:
        raise DataError(f"{some(twice)} stands in the data more than once. Name every picture once.")


def _look_all(entries: Sequence[Entry], root: Path, progress: Progress | None) -> Iterator[Facts]:
    """Look at every file, in order; Pillow decodes outside the interpreter's lock, so threads are enough."""
    done, todo = 0, iter(entries)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(islice(todo, _CHUNK)):
            yield from pool.map(lambda entry: _look(entry, root), chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, len(entries))


def _look(entry: Entry, root: Path) -> Facts:
    try:
        data = read(root, entry.path)
        known = blake2b(data, digest_size=16).hexdigest()
    except DataError as error:
        return Facts(entry.id, error=str(error))
    try:
        image, notes = decode(data, name=entry.path)
    except DataError as error:
        return Facts(entry.id, known, error=str(error))
    pixels = blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=16).hexdigest()
    flat = bool(np.ptp(image[::2, ::2]) <= 4)  # every other pixel is enough to see that nothing is to be seen
    return Facts(entry.id, known, pixels, image.shape[:2], notes, flat)


def _row(entry: Entry, facts: Facts) -> Row:
    state = QUARANTINED if facts.error else KEPT
    return Row(entry.id, entry.path, entry.label, entry.split, entry.group, facts.hash, state, facts.error)


def _twins(rows: list[Row], facts: Sequence[Facts]) -> tuple[list[Row], list[Finding]]:
    """Tie equal pictures to one group; keep those out whose labels contradict each other.

    At most one of two different labels of the same picture is right, and nobody here knows which: a network
    taught both learns neither, and a score that holds them cannot reach 100 %.
    """
    alike: dict[str, list[int]] = defaultdict(list)
    for i, one in enumerate(facts):
        if one.pixels:
            alike[one.pixels].append(i)
    groups = [members for members in alike.values() if len(members) > 1]
    clashing = [m for m in groups if len({rows[i].label for i in m}) > 1]
    leaking = [m for m in groups if len({rows[i].split for i in m} - {""}) > 1]
    rows = _tie(rows, groups)
    for members in clashing:
        for i in members:
            other = next(j for j in members if rows[j].label != rows[i].label)
            reason = f"the same picture is labelled {rows[other].label!r} as {rows[other].id}"
            rows[i] = rows[i]._replace(state=QUARANTINED, reason=reason)
    return rows, [*_said_twins(rows, groups, clashing), *_said_leaks(rows, leaking)]


def _tie(rows: list[Row], groups: list[list[int]]) -> list[Row]:
    """Give twins one group, and join the groups that people gave where twins connect them."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    for members in groups:
        names = [rows[i].group or f"twins:{rows[members[0]].id}" for i in members]
        first, *others = sorted({find(name) for name in names}, key=natural)
        for other in others:
            leader[other] = first
    tied = {i: find(rows[i].group or f"twins:{rows[members[0]].id}") for members in groups for i in members}
    return [
        row._replace(group=tied[i] if i in tied else find(row.group) if row.group in leader else row.group)
        for i, row in enumerate(rows)
    ]


def _said_twins(rows: list[Row], groups: list[list[int]], clashing: list[list[int]]) -> Iterator[Finding]:
    taken = {m[0] for m in clashing}
    harmless = [m for m in groups if m[0] not in taken]
    if clashing:
        pairs = some((" = ".join(rows[i].id for i in m) for m in clashing), 2)
        yield Finding(
            "conflict",
            f"{count(len(clashing), 'picture')} with contradicting labels, every copy kept out: {pairs}. "
            "Delete the wrong one of each and check again.",
            tuple(rows[i].id for m in clashing for i in m),
            grave=True,
        )
    if harmless:
        yield Finding(
            "twins",
            f"{count(len(harmless), 'picture')} there more than once, kept on one side of the split: "
            f"{some((' = '.join(rows[i].id for i in m) for m in harmless), 2)}.",
            tuple(rows[i].id for m in harmless for i in m),
        )


def _said_leaks(rows: list[Row], leaking: list[list[int]]) -> Iterator[Finding]:
    if leaking:
        yield Finding(
            "leak",
            f"{count(len(leaking), 'picture')} on two sides of the split that was given: "
            f"{some((' = '.join(rows[i].id for i in m) for m in leaking), 2)}. "
            "Delete one side, or the score flatters.",
            tuple(rows[i].id for m in leaking for i in m),
            grave=True,
        )


def _unreadable(rows: Iterable[Row]) -> Iterator[Finding]:
    broken = [row for row in rows if row.state == QUARANTINED]
    if broken:
        shown = some((row.reason.split(". ")[0].rstrip(".") for row in broken), 3)
        are = "is" if len(broken) == 1 else "are"
        yield Finding(
            "unreadable",
            f"{count(len(broken), 'file')} cannot be read and {are} kept out: {shown}.",
            tuple(row.id for row in broken),
            grave=True,
        )


def _noted(facts: Sequence[Facts]) -> Iterator[Finding]:
    by_note: dict[str, list[str]] = defaultdict(list)
    for one in facts:
        for note in one.notes:
            by_note[note].append(one.id)
    for note, ids in sorted(by_note.items()):
        which = "all of them" if len(ids) == len(facts) else some(ids, 2)
        yield Finding("converted", f"{count(len(ids), 'picture')}: {note} ({which}).", tuple(ids))
    flat = [one.id for one in facts if one.flat]
    if flat:
        yield Finding(
            "flat",
            f"{count(len(flat), 'picture')} of one colour: {some(flat)}. Look whether they belong.",
            tuple(flat),
        )


def _classes(rows: Sequence[Row]) -> Iterator[Finding]:
    """Say which classes are empty, tiny or out of proportion."""
    kept = Counter(one for row in rows if row.state == KEPT for one in row.labels)
    names = sorted({one for row in rows for one in row.labels}, key=natural)
    empty = [name for name in names if not kept[name]]
    tiny = [f"{name} ({kept[name]})" for name in names if 0 < kept[name] < TINY_CLASS]
    if empty:
        yield Finding(
            "empty class", f"No usable picture in {some(empty)}. Add some or remove the class.", grave=True
        )
    if tiny:
        yield Finding(
            "tiny class",
            f"Fewer than {TINY_CLASS} pictures in {some(tiny)}. Add more: scores there mean little.",
        )
    if kept and max(kept.values()) >= IMBALANCE * min(kept.values()):
        (most, many), (least, few) = kept.most_common()[0], kept.most_common()[-1]
        yield Finding(
            "imbalance",
            f"{most!r} has {many / few:.0f} times as many pictures as {least!r}. "
            "Train with --balance loss or --balance sampling.",
        )
