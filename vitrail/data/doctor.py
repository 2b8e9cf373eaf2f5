"""Check a data set: decode every file once and report problems, what was done and what the user can do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.core.environment import usable_cores
from vitrail.core.errors import DataError
from vitrail.data import duplicates
from vitrail.data import findings as say
from vitrail.data.findings import Finding
from vitrail.data.image_facts import Facts, Memory, grey_of, look, look_windows, named
from vitrail.data.labels import count, natural, shorten
from vitrail.data.layouts import Entry, Layout
from vitrail.data.layouts.base import truth_of
from vitrail.data.manifest import DROPPED, KEPT, QUARANTINED, Row
from vitrail.data.parts import is_raster
from vitrail.data.targets import Gather, Targets, targets_for

Progress = Callable[[int, int], None]
Checks = Mapping[str, tuple[str, tuple[Finding, ...]]]
"""Id of a readable image → its truth, and the findings about it."""

CHUNK = 256  # images between two writes to the cache
_FEW, _TENTH = 3, 10


@dataclass(frozen=True)
class Report:
    """The result of a check: one row per image with its state, group and hash, and the findings.

    `general` are the findings about images, `of_truth` the findings about truths.
    """

    root: Path
    rows: tuple[Row, ...] = field(repr=False)
    general: tuple[Finding, ...]
    of_truth: tuple[Finding, ...]
    targets: Targets[Any] = field(repr=False, compare=False)
    facts: Mapping[str, Facts] = field(repr=False, compare=False)  # by row id, like `checks`
    checks: Checks = field(repr=False, compare=False)
    sizes: tuple[
        tuple[int, int], ...
    ] = ()  # (height, width) of the smallest, the median and the largest image

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, grave ones first."""
        return tuple(sorted([*self.general, *self.of_truth], key=lambda finding: not finding.grave))

    def again(self, row: Row) -> Row:
        """Check again a row that was decided to be kept or relabelled; return it kept if it can be used."""
        facts = self.facts[row.id]
        if facts.error:
            return row._replace(state=QUARANTINED, reason=facts.error)
        return _judged(row, _check(row, facts, self.targets, self.root))

    def decided(self, rows: Sequence[Row], targets: Targets[Any]) -> Report:
        """Return the report for the rows after decisions, with their targets."""
        general = tuple(say.restated(self.general, self.rows, rows, self.targets.words))
        checks = dict(self.checks)
        for row in rows:
            if row.id in checks and checks[row.id][0] != row.target:
                checks[row.id] = row.target, _check(row, self.facts[row.id], targets, self.root)
        of_truth = tuple(_of_truth(rows, checks, targets))
        return replace(
            self, rows=tuple(rows), general=general, of_truth=of_truth, targets=targets, checks=checks
        )

    def unusable(self) -> tuple[Row, ...]:
        """Return the readable images that are excluded because of their truth."""
        return tuple(
            row
            for row in self.rows
            if row.state == QUARANTINED and any(one.out for one in self.checks.get(row.id, ("", ()))[1])
        )

    def lines(self) -> list[str]:
        """Return the findings as text; of many conflicts, only the first three and the number of the others."""
        conflicts = [finding for finding in self.findings if finding.kind == "conflict"]
        lines = [finding.text for finding in self.findings if finding not in conflicts[_FEW:]]
        more = len(conflicts) - _FEW
        if more > 0:
            lines.insert(_FEW, f"{count(more, 'more picture')} with different labels, all named by --json.")
        return lines

    def of(self, kind: str) -> tuple[str, ...]:
        """Return the ids in the findings of one kind."""
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
    targets: Gather | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Decode every image of a layout once, on all cores, and return a report; the data is not changed.

    `targets` builds the targets of a task (None: the default task for this kind of truth). `cache` is a file with
    results by content hash, so that a second check, or one after an interruption, decodes only new images.

    Raises:
        DataError: two entries have the same id, or no image can be read.
    """
    if isinstance(layout, Sequence):
        layout = Layout("entries", root or Path(), "", tuple(layout), truth=truth_of(layout))
        entries = list(layout.found)
    else:
        entries = list(layout.entries())
    base = root if root is not None else layout.root
    gather = targets or targets_for(layout.truth, refusal=layout.refusal)
    _refuse_twice(entries)
    memory = Memory(cache)
    try:
        facts = list(look_all(entries, base, memory, progress))
    finally:
        memory.close()
    if all(one.error for one in facts):
        first = facts[0].error if facts else "there is none"
        raise DataError(f"None of {say.many(entries)} can be read, the first because: {first}")
    rows = [_row(entry, one) for entry, one in zip(entries, facts, strict=True)]
    broken = list(say.unreadable(rows))
    by_id = {entry.id: one for entry, one in zip(entries, facts, strict=True)}
    found = gather([row for row in rows if row.state == KEPT])
    checks = _check_all(rows, by_id, found, base)
    rows = [_judged(row, checks[row.id][1]) if row.id in checks else row for row in rows]
    rows, alike = group_duplicates(rows, facts, found, base)
    general = (*broken, *alike, *say.pictures(rows, facts))
    of_truth = tuple(_of_truth(rows, checks, found))
    return Report(base, tuple(rows), general, of_truth, found, by_id, checks, _sizes(facts))


def _check_all(rows: Sequence[Row], facts: Mapping[str, Facts], targets: Targets[Any], root: Path) -> Checks:
    """Return, by the id of every readable image, its truth and the findings about it."""

    def check(chunk: Sequence[Row]) -> list[tuple[str, tuple[str, tuple[Finding, ...]]]]:
        return [(row.id, (row.target, _check(row, facts[row.id], targets, root))) for row in chunk]

    readable = [row for row in rows if row.state == KEPT]
    chunks = [readable[start : start + CHUNK] for start in range(0, len(readable), CHUNK)]
    with ThreadPoolExecutor(workers()) as pool:  # a truth can be an image that must be decoded
        return dict(pair for pairs in pool.map(check, chunks) for pair in pairs)


def _check(row: Row, facts: Facts, targets: Targets[Any], root: Path) -> tuple[Finding, ...]:
    try:
        return tuple(targets.check(row, facts, root))
    except DataError as error:
        return (Finding("unreadable truth", str(error).rstrip("."), (row.id,), grave=True, out=True),)


def _judged(row: Row, findings: Sequence[Finding]) -> Row:
    """Return the row as kept, or as quarantined because of its truth."""
    bad = next((one for one in findings if one.out), None)
    if bad is None:
        return row._replace(state=KEPT, reason="")
    return row._replace(state=QUARANTINED, reason=bad.text)


def _of_truth(rows: Sequence[Row], checks: Checks, targets: Targets[Any]) -> Iterator[Finding]:
    """Yield the findings about the truths of single images and of the set."""
    ids = [row.id for row in rows if row.state != DROPPED and row.id in checks]
    yield from say.truths(one for name in ids for one in checks[name][1])
    yield from targets.check_set(rows)


def workers() -> int:
    """Return the number of threads that decode images: Pillow decodes without the interpreter lock."""
    return usable_cores()


def _refuse_twice(entries: Sequence[Entry]) -> None:
    twice = [one for one, number in Counter(entry.id for entry in entries).items() if number > 1]
    if twice:
        raise DataError(f"{shorten(twice)} stands in the data more than once. Name every image once.")


def look_all(
    entries: Sequence[Entry], root: Path, memory: Memory, progress: Progress | None
) -> Iterator[Facts]:
    """Yield the facts of images in order; those whose content is not cached are decoded, on all cores."""

    def look_at(entry: Entry) -> Facts:
        if entry.trouble:
            return Facts(error=f"{entry.path} {entry.trouble}.")
        return look(root, entry.path, memory, entry.part)

    done, todo = 0, iter(entries)
    with ThreadPoolExecutor(workers()) as pool:
        while chunk := list(islice(todo, CHUNK)):
            if is_raster(chunk[0].part):
                facts = look_windows(root, [(one.path, one.part) for one in chunk], pool.map)
            else:
                facts = list(pool.map(look_at, chunk))
            memory.keep()
            done += len(chunk)
            if progress is not None:
                progress(done, len(entries))
            yield from (named(one, entry.path) for one, entry in zip(facts, chunk, strict=True))


def _row(entry: Entry, facts: Facts) -> Row:
    state = QUARANTINED if facts.error else KEPT
    target, split, group = entry.target, entry.split, entry.group
    return Row(entry.id, entry.path, entry.part, target, split, group, facts.hash, state, facts.error)


def group_duplicates(
    rows: list[Row], facts: Sequence[Facts], targets: Targets[Any], root: Path
) -> tuple[list[Row], list[Finding]]:
    """Put duplicates into one group, quarantine those with contradicting truths, and return rows and findings.

    At most one of two labels of the same image is correct, and it is unknown which: a network trained on both learns
    neither. Images that are only similar are kept, because the labels may describe their difference.
    """

    def grey(i: int) -> NDArray[np.uint8]:
        return grey_of(root, rows[i].path, rows[i].part)

    def differ(group: Sequence[int], same: Callable[[Row, Row, Path], bool]) -> bool:
        kept = [rows[i] for i in group if rows[i].state == KEPT]
        return any(not same(kept[0], other, root) for other in kept[1:])

    alike = duplicates.find_duplicates(facts, grey, workers())
    strata = [targets.strata(row) for row in rows]
    sizes = Counter(one for own in strata for one in own)
    wide = [group for group in alike.similar if _is_wide([strata[i] for i in group], sizes)]
    similar = [group for group in alike.similar if group not in wide]
    merged = duplicates.components(len(rows), [(g[0], i) for g in (*alike.equal, *similar) for i in g[1:]])
    clashing = [group for group in alike.equal if differ(group, targets.same)]
    clashed = {i for group in clashing for i in group}
    harmless = [group for group in alike.equal if group[0] not in clashed]
    doubtful = [g for g in similar if differ([i for i in g if i not in clashed], targets.alike)]
    tied = _grouped(rows, merged)
    for group in clashing:
        kept = [i for i in group if rows[i].state == KEPT]
        for i in kept:
            other = next((rows[j] for j in kept if not targets.same(rows[i], rows[j], root)), rows[kept[0]])
            reason = f"{say.CONTRADICTS} {targets.words(other)!r} as {other.id}"
            tied[i] = tied[i]._replace(state=QUARANTINED, reason=reason)
    found = [
        *say.conflicts(tied, clashing, targets.words),
        *say.doubtful(rows, doubtful, targets.words),
        *say.leaks(rows, merged),
        *say.twins(rows, harmless, similar, wide),
    ]
    return tied, found


def _is_wide(group: Sequence[Sequence[str]], sizes: Counter[str]) -> bool:
    """Return whether a group is a chain of similar images with more than a tenth of a class: not duplicates."""
    return len(group) > max(_FEW, min((sizes[one] for own in group for one in own), default=0) / _TENTH)


def _grouped(rows: Sequence[Row], merged: Sequence[Sequence[int]]) -> list[Row]:
    """Write the same group name into all rows that are connected by duplicates or named groups."""
    members: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if row.group:
            members.setdefault(row.group, []).append(i)
    links = [(group[0], i) for group in (*merged, *members.values()) for i in group[1:]]
    tied = list(rows)
    for group in duplicates.components(len(rows), links):
        named = sorted({rows[i].group for i in group} - {""}, key=natural)
        name = named[0] if named else f"twins:{rows[group[0]].id}"
        for i in group:
            tied[i] = tied[i]._replace(group=name)
    return tied


def _sizes(facts: Sequence[Facts]) -> tuple[tuple[int, int], ...]:
    sizes = sorted((one.size for one in facts if not one.error), key=lambda size: size[0] * size[1])
    middle = (round(median(h for h, _ in sizes)), round(median(w for _, w in sizes)))
    return sizes[0], middle, sizes[-1]
