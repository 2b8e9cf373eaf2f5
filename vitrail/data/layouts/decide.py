"""Choose between the readings of a source by the number of images that each explains; all are reported.

Two readings contradict each other if they explain a similar number of images and give the same images different labels.
The program cannot know which is right, so it asks the user.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from vitrail.core import catalog
from vitrail.core.errors import DataError
from vitrail.data.labels import count, same_name, shorten, split_labels
from vitrail.data.layouts import table, unlabelled
from vitrail.data.layouts.base import ALONE, CLIPS, Layout, Question, Tree, Way

Look = Callable[[Tree], Layout | None]

_PLAIN = 0.3
"""Weight of an image explained by folders whose names may not be classes: parts of a download, batches."""

_WORDS = 0.3
"""Weight of an image explained by a word in its file name."""

_TEXTS = 0.99
"""Weight of an image explained by captions: class folders that explain as many images are classes."""

_CLOSE = 0.5
"""A reading with a smaller share of the largest weight is only reported and is not a question."""

_SOME = 0.05
"""A reading that explains a smaller share of the images is not reported."""


_SHAPES = frozenset(("folders", "filenames"))
"""Readings by names only; their problems are not reported if another reading is chosen."""


_OF_CLIPS = ("folders", "table", "filenames")
"""The readings of clips; names of class folders are better classes than the numbers of a list."""


class Found(NamedTuple):
    """All readings of a source, and the tables that could not be used."""

    readings: list[Layout]
    aside: list[table.Aside]
    refusals: dict[str, DataError]


def decide(tree: Tree) -> Layout | None:
    """Return the reading that explains most images, with notes about the others; None if there is none.

    Raises:
        DataError: the source is broken, or refers to images in an unknown way.
    """
    if tree.wanted == "none":
        return images(tree)
    found = _wanted(tree, _all(tree))
    if not found.readings:
        _refuse_with_reasons(tree, found)
        return None
    ranked = sorted(
        found.readings, key=lambda one: -_weight(one)
    )  # stable sort: ties keep the order of the catalog
    chosen, others = ranked[0], ranked[1:]
    _refuse_unread(tree, chosen, found)
    question = None
    unnamed = table.unnamed(tree, chosen) if chosen.tables and chosen.name != CLIPS else []
    notes = [*tree.notes, *tree.odd_notes(), *unnamed, *chosen.notes]
    if chosen.name != CLIPS and (chosen.tables or chosen.name in _SHAPES):
        told = (
            *chosen.tables,
            *(name for one in others for name in one.tables),
            *(one.name for one in found.aside),
        )
        notes += tree.other_notes(told)
    for other in others:
        if other.name == "filenames" and chosen.truth.kind not in {"class", "classes"}:
            continue  # words in the names of images with masks
        differ, shared = differing(chosen, other)
        if shared < _SOME * len(chosen.explained) and not other.tables:
            continue
        if differ and _is_question(chosen, other) and question is None:
            question = _question(chosen, other, differ, shared)
        elif (differ and not other.plain) or other.tables:
            notes.append(_other(other, differ, shared))
    notes += [f"{one.name} left aside: {one.why}." for one in found.aside]
    notes += [str(error) for name, error in found.refusals.items() if name not in _SHAPES]
    if chosen.plain.startswith("are called like parts"):
        notes.append(
            f"The folders {shorten(chosen.classes)} {chosen.plain}: are they classes? A table of labels would be taken "
            "in their place."
        )
    return replace(chosen, notes=tuple(dict.fromkeys(notes)), question=question)


_ALIKE = {
    "class": {"class", "classes"},
    "classes": {"class", "classes"},
    "boxes": {"boxes", "instances"},
}
"""Kind of truth that a task wants → the kinds that it takes."""


def _wanted(tree: Tree, found: Found) -> Found:
    """Keep only the readings with the kind of truth of the named task, if there are any."""
    kinds = _ALIKE.get(tree.wanted, {tree.wanted})
    fitting = [one for one in found.readings if one.truth.kind in kinds]
    return found._replace(readings=fitting) if fitting else found


def images(tree: Tree) -> Layout | None:
    """Return all images of a source without labels; None if there is none.

    Raises:
        DataError: the source is a table that names no image.
    """
    try:
        readings = _all(replace(tree, wanted="")).readings
    except DataError:
        if not tree.table:
            raise
        readings = []  # a table of images only, which has no labels to read
    return unlabelled.without_labels(tree, sorted(readings, key=lambda one: -_weight(one)))


def _all(tree: Tree) -> Found:
    readings: list[Layout] = []
    aside: list[table.Aside] = []
    refusals: dict[str, DataError] = {}
    for name in _OF_CLIPS if tree.clips else catalog.LAYOUTS:
        if name == "filenames" and _explained_well(tree, readings):
            continue
        if tree.table and any(tree.table in one.tables for one in readings):
            continue
        if name == "table":
            tables = table.readings(tree)
            readings += tables.layouts
            aside = tables.aside
            continue
        look: Look = catalog.load("layout", name)
        try:
            found = look(tree)
        except DataError as error:
            refusals[name] = error
            continue
        if found is not None and all(found.name != one.name for one in readings):
            readings.append(found)
            if found.truths:  # masks are not images, so other readings must not use them
                left = {name: path for name, path in tree.files.items() if name not in found.truths}
                tree = replace(tree, files=left)
    return Found(readings, aside, refusals)


def _explained_well(tree: Tree, readings: Sequence[Layout]) -> bool:
    """Return whether half the images are explained by more than words in their names."""
    return any(2 * len(one.explained) >= len(tree.pictures) and not one.plain for one in readings)


def _is_question(chosen: Layout, other: Layout) -> bool:
    """Return whether a reading has enough weight for a question; words in file names never have."""
    if other.name == "filenames" or chosen.sure:
        return False
    if (other.truth.kind == "caption") != (chosen.truth.kind == "caption"):
        return False  # the captions of images do not contradict their classes, boxes or masks
    if other.plain and chosen.truth.kind not in {"class", "classes"}:
        return False
    return _weight(other) >= _CLOSE * _weight(chosen)


def _weight(layout: Layout) -> float:
    number = len(layout.found) if layout.sure else len(layout.explained)
    if layout.truth.kind == "caption":
        return _TEXTS * number
    if layout.name == "filenames":
        return _WORDS * number
    return _PLAIN * number if layout.plain else number


def differing(one: Layout, other: Layout) -> tuple[int, int]:
    """Return for how many images two readings differ, and how many both explain.

    Readings whose labels are different names of the same classes, one to one, do not differ.
    """
    shared = one.explained.keys() & other.explained.keys()
    if one.truth.kind == "caption" == other.truth.kind:
        return sum(one.explained[path] != other.explained[path] for path in shared), len(shared)
    if one.truth.kind not in {"class", "classes"} or other.truth.kind not in {"class", "classes"}:
        return (len(shared) if one.truth.kind != other.truth.kind else 0), len(shared)
    if one.truth.kind == "caption" == other.truth.kind:
        return sum(one.explained[path] != other.explained[path] for path in shared), len(shared)
    pairs = [(_folded(one.explained[path]), _folded(other.explained[path])) for path in shared]
    if not {a for a, _ in pairs} & {b for _, b in pairs} and _one_to_one(pairs):
        return 0, len(shared)
    return sum(a != b for a, b in pairs), len(shared)


def _folded(cell: str) -> frozenset[str]:
    return frozenset(same_name(label) for label in split_labels(cell))


def _one_to_one(pairs: Iterable[tuple[frozenset[str], frozenset[str]]]) -> bool:
    there: dict[frozenset[str], set[frozenset[str]]] = defaultdict(set)
    back: dict[frozenset[str], set[frozenset[str]]] = defaultdict(set)
    for a, b in pairs:
        there[a].add(b)
        back[b].add(a)
    return all(len(found) == 1 for found in (*there.values(), *back.values()))


def _refuse_with_reasons(tree: Tree, found: Found) -> None:
    """Raise the error of a source without any reading, with the reason for every table in it."""
    reasons = " ".join(f"{one.name} is not used: {one.why}." for one in found.aside)
    for refusal in found.refusals.values():
        raise DataError(f"{refusal} {reasons}") if reasons else refusal
    if reasons:
        raise DataError(
            f"{tree.name} holds {count(len(tree.pictures), tree.noun)}, but no labels are found. {reasons}"
            f"{'' if tree.clips else f' {ALONE}'}"
        )


def _refuse_unread(tree: Tree, chosen: Layout, found: Found) -> None:
    """Raise DataError for folders that may not be classes if labels beside them could not be read."""
    if not chosen.plain:
        return
    for name, error in found.refusals.items():
        if name not in _SHAPES:
            raise error
    enough = min(len(chosen.explained), table.SAMPLE) / 4
    unread = next((one for one in found.aside if one.reached >= enough), None)
    if unread is not None:
        raise DataError(
            f"{unread.name} names the images of {tree.name}, but is not understood: {unread.why}. The folders "
            f"({shorten(chosen.classes)}) {chosen.plain}. To take them as classes: --layout {chosen.name}"
        )


def _summary(layout: Layout) -> str:
    """Return a short description of a reading: its kind, the number of images it explains, its classes."""
    what = {"folders": "the folders", "filenames": "the file names"}.get(layout.name, layout.name)
    if layout.tables:
        what = layout.tables[0]
    classes = f": {shorten(layout.classes)}" if layout.truth.kind in {"class", "classes"} else ""
    return f"{what} ({count(len(layout.explained), layout.noun)}{classes})"


def _question(chosen: Layout, other: Layout, differ: int, shared: int) -> Question:
    number = count(shared, "image")
    what = f"{_summary(chosen)} and {_summary(other)} say different things of {differ:,} of {number}"
    more = len(chosen.explained) != len(other.explained)
    why = "names the images one by one" if chosen.tables else "comes first"
    if more:
        why = "explains more images"
    text = (
        f"Two readings contradict each other: {what}. The first {why}, but nobody here knows which is meant."
    )
    return Question(text, tuple(Way(_summary(one), one.option) for one in (chosen, other)))


def _other(other: Layout, differ: int, shared: int) -> str:
    name, value = other.option
    says = f"says something else of {differ:,} of {count(shared, 'image')}" if differ else "says the same"
    return f"Not used: {_summary(other)} {says}; to take it: --{name} {value}"
