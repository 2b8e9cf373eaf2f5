"""The findings of a check. Each names the images it concerns and states what was done or what to do."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from vitrail.data.image_facts import FLAT, NO_DATA, Facts
from vitrail.data.labels import count, natural, shorten
from vitrail.data.manifest import KEPT, QUARANTINED, Row
from vitrail.data.open_image import is_clip
from vitrail.data.parts import is_raster

TINY_CLASS = 10
IMBALANCE = 10
"""Ratio of image numbers from which two classes are reported as unbalanced."""

LONG = 4
SHORT_SIDE = 16

CONTRADICTS = "the same image is labelled"
"""Start of the reason for which an equal image with another truth is excluded."""

Groups = Sequence[Sequence[int]]
Words = Callable[[Row], str]
Strata = Callable[[Row], Sequence[str]]


@dataclass(frozen=True)
class Finding:
    """One finding. `grave` findings exclude images or distort scores; the others are for information.

    For the truth of one image, `text` is the problem, `hint` the remedy, and `out` means that the image is excluded.
    `table` contains the numbers of the text, in rows with the same columns; a column "share" has values from 0 to 1.
    """

    kind: str
    text: str
    ids: tuple[str, ...] = ()
    grave: bool = False
    out: bool = False
    hint: str = ""
    table: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        table = {"table": [dict(row) for row in self.table]} if self.table else {}
        return {"kind": self.kind, "grave": self.grave, "text": self.text, "ids": list(self.ids), **table}


def unreadable(rows: Sequence[Row]) -> Iterator[Finding]:
    """Report the files that cannot be read, with the reasons of the first."""
    out = [row for row in rows if row.state == QUARANTINED]
    empty = [row for row in out if row.reason == NO_DATA]
    broken = [row for row in out if row.reason != NO_DATA]
    if empty:
        yield Finding(
            "no data",
            f"{count(len(empty), 'window')} kept out, because no band has data there (outside, no data, clouds).",
            tuple(row.id for row in empty),
        )
    if broken:
        shown = shorten((row.reason.split(". ")[0].rstrip(".") for row in broken), 3)
        noun = "window" if is_raster(broken[0].part) else "file"
        yield Finding(
            "unreadable",
            f"{count(len(broken), noun)} cannot be used and {_are(broken)} kept out: {shown}.",
            tuple(row.id for row in broken),
            grave=True,
        )


def noun_of(rows: Sequence[Any]) -> str:
    """Return what the rows or entries of a data set are called: clips, if its first row is one, or images."""
    return "clip" if rows and is_clip(rows[0].path, rows[0].part) else "image"


def many(rows: Sequence[Any]) -> str:
    """Return the number of the rows or entries with their noun."""
    return count(len(rows), noun_of(rows))


def truths(found: Iterable[Finding]) -> Iterator[Finding]:
    """Combine the findings about truths of single images into one finding per kind."""
    kinds: dict[str, list[Finding]] = defaultdict(list)
    for one in found:
        kinds[one.kind].append(one)
    for kind, alike in kinds.items():
        ids = tuple(name for one in alike for name in one.ids)
        by_text: dict[str, list[str]] = defaultdict(list)
        for one in alike:
            by_text[one.text] += one.ids
        shown = shorten((f"{text}: {shorten(names)}" for text, names in by_text.items()), 2)
        kept_out = " kept out" if alike[0].out else ""
        hint = f" {alike[0].hint}" if alike[0].hint else ""
        text = f"{count(len(ids), 'image')}{kept_out}, {shown}.{hint}"
        yield Finding(kind, text, ids, any(one.grave for one in alike))


def conflicts(rows: Sequence[Row], groups: Groups, words: Words) -> Iterator[Finding]:
    """Report each image with several labels in its own finding, so that each decision can be undone."""
    for group in groups:
        yield _conflict([rows[i] for i in group], words)


def _conflict(copies: Sequence[Row], words: Words) -> Finding:
    said = " = ".join(f"{row.id} ({words(row)})" for row in copies[:3])
    more = f" and {len(copies) - 3} more" if len(copies) > 3 else ""
    kept = sum(row.state == KEPT for row in copies)
    some_kept = "every copy kept" if kept == len(copies) else f"{kept} of {len(copies)} copies kept"
    return Finding(
        "conflict",
        f"The same image with different labels, {some_kept if kept else 'every copy kept out'}: {said}{more}. "
        "Delete the wrong one.",
        tuple(row.id for row in copies),
        grave=True,
    )


def twins(rows: Sequence[Row], equal: Groups, similar: Groups, wide: Groups) -> Iterator[Finding]:
    """Report duplicates: equal images, similar images, and groups of similar images too large to be duplicates."""
    tied = "kept on one side of the split"
    for kind, groups, noun, what in (
        ("twins", equal, "picture", f"there more than once, {tied}"),
        ("similar", similar, "picture", f"there again almost unchanged, {tied}"),
        ("alike", wide, "crowd", "too large to be kept on one side of the split, though all look alike"),
    ):
        if groups:
            shown = shorten((" = ".join(rows[i].id for i in group[:3]) for group in groups), 2)
            ids = tuple(rows[i].id for group in groups for i in group)
            yield Finding(kind, f"{count(len(groups), noun)} {_are(groups)} {what}: {shown}.", ids)


def _are(found: Sequence[object]) -> str:
    return "is" if len(found) == 1 else "are"


def doubtful(rows: Sequence[Row], groups: Groups, words: Words) -> Iterator[Finding]:
    """Report similar images with different labels; they are kept, because the labels may describe the difference."""
    if groups:
        shown = shorten((" = ".join(f"{rows[i].id} ({words(rows[i])})" for i in g[:3]) for g in groups), 2)
        yield Finding(
            "doubtful",
            f"{count(len(groups), 'pair')} of almost equal images, different labels: {shown}. See which is right.",
            tuple(rows[i].id for group in groups for i in group),
            grave=True,
        )


def leaks(rows: Sequence[Row], groups: Groups) -> Iterator[Finding]:
    """Report equal or similar images and named groups that are in two splits of the data."""
    crossing = [group for group in groups if len({rows[i].split for i in group} - {""}) > 1]
    if crossing:
        shown = shorten((" = ".join(rows[i].id for i in group[:3]) for group in crossing), 2)
        yield Finding(
            "leak",
            f"{count(len(crossing), 'image')} {_are(crossing)} on two sides of the split that was given: {shown}. "
            "The score is reported with and without them; delete one side to have one score.",
            tuple(rows[i].id for group in crossing for i in group),
            grave=True,
        )
    sides: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.group and row.split:
            sides[row.group].add(row.split)
    named = [name for name, splits in sides.items() if len(splits) > 1 and not name.startswith("twins:")]
    if named:
        ids = tuple(row.id for row in rows if row.group in set(named))
        text = f"{count(len(named), 'group')} {_are(named)} on two sides of the split that was given: {shorten(named)}."
        yield Finding("group leak", text + " Put each on one side, or the score flatters.", ids, grave=True)


def pictures(rows: Sequence[Row], facts: Sequence[Facts]) -> Iterator[Finding]:
    """Report conversions, images of one colour and images of an unusual size."""
    noun = noun_of(rows)
    by_note: dict[str, list[str]] = defaultdict(list)
    for row, one in zip(rows, facts, strict=True):
        for note in one.notes:
            by_note[note].append(row.id)
    for note, ids in sorted(by_note.items()):
        which = "all of them" if len(ids) == len(facts) else shorten(ids, 2)
        yield Finding("converted", f"{count(len(ids), noun)}: {note} ({which}).", tuple(ids))
    read = [(row.id, one) for row, one in zip(rows, facts, strict=True) if not one.error]
    flat = [name for name, one in read if one.spread < FLAT]
    if flat:
        text = f"{count(len(flat), noun)} of nearly one colour: {shorten(flat)}. Check that they belong here."
        yield Finding("flat", text, tuple(flat), grave=True)
    usual = median(min(one.size) for _, one in read) if read else 0
    odd = [name for name, one in read if _is_odd(one.size, usual)]
    if odd:
        text = f"{count(len(odd), noun)} of an odd size: {shorten(odd)}. Little of them is left in a square input."
        yield Finding("odd size", text, tuple(odd))


def _is_odd(size: tuple[int, int], usual: float) -> bool:
    """Return whether an image is over four times longer than wide, or very small compared with the others."""
    short, long = sorted(size)
    return long > LONG * short or (short < SHORT_SIDE and short < usual / 4)


def classes(rows: Sequence[Row], strata: Strata) -> Iterator[Finding]:
    """Report classes that are empty, missing in a split, small, unbalanced, or spelt in two ways."""
    kept = Counter(one for row in rows if row.state == KEPT for one in strata(row))
    names = sorted({one for row in rows for one in strata(row)}, key=natural)
    empty = [name for name in names if not kept[name]]
    tiny = [f"{name} ({kept[name]})" for name in names if 0 < kept[name] < TINY_CLASS]
    if empty:
        yield Finding(
            "empty class",
            f"No usable image in {shorten(empty)}. Add some, or remove the class.",
            grave=True,
        )
    yield from missing(rows, [name for name in names if kept[name]], strata)
    if tiny:
        few = f"Fewer than {TINY_CLASS} images in {shorten(tiny)}. Add more: scores there mean little."
        yield Finding("tiny class", few)
    if kept and max(kept.values()) >= IMBALANCE * min(kept.values()):
        (most, many), (least, few_) = kept.most_common()[0], kept.most_common()[-1]
        yield Finding(
            "imbalance",
            f"{most!r} has {many / few_:.0f} times as many images as {least!r}. "
            "Train with --balance loss or --balance sampling.",
        )
    by_fold: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_fold[name.casefold()].append(name)
    for same in by_fold.values():
        if len(same) > 1:
            said = " and ".join(repr(name) for name in same)
            yield Finding(
                "spelling",
                f"The classes {said} differ in capitals only. Rename one if they are one.",
                grave=True,
            )


def restated(
    findings: Iterable[Finding], rows: Sequence[Row], decided: Sequence[Row], words: Words
) -> Iterator[Finding]:
    """Update the conflicts after decisions: which copies of an image are kept.

    `rows` are the rows of the check, with the truths of the data; `decided` are the rows after decisions.
    """
    state = {row.id: row.state for row in decided}
    copies = {row.id: row._replace(state=state[row.id]) for row in rows}
    for one in findings:
        yield _conflict([copies[known] for known in one.ids], words) if one.kind == "conflict" else one


def missing(rows: Sequence[Row], names: Sequence[str], strata: Strata) -> Iterator[Finding]:
    """Report which of these classes have no image in a given split."""
    given: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.split and row.state == KEPT:
            given[row.split].update(strata(row))
    for split, found in sorted(given.items()):
        missing = [name for name in names if not found[name]]
        if missing:
            text = (
                f"No {split} image of {shorten(missing)}: the order of classes stays, its score is unknown."
            )
            yield Finding("missing class", text, grave=split == "train")
