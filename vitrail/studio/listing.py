"""The images of a data set as a page lists them: from names alone at first, with what was found after a check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vitrail.core.errors import DataError, VitrailError
from vitrail.data.labels import natural

if TYPE_CHECKING:
    from pathlib import Path

    from vitrail.data.decisions import History
    from vitrail.data.layouts import Layout, Question
    from vitrail.data.manifest import Row
    from vitrail.data.prepare import Prepared
    from vitrail.data.targets import Targets

PAGE = 200
"""Images of one page of a list."""

MOST_CHOSEN = 20_000
"""Images that one decision may be about."""

GONE = "These images have changed. Load the page again."

_FILTERS = 8


@dataclass(frozen=True)
class Listing:
    """The images of a data set in the order of their groups, then of their names.

    `group` tells the group of a row by its id: its class, if it has one. `problem` says why nothing can be learned
    from them yet; `question` is open if two readings contradict each other; `checked` if every image was decoded.
    """

    root: Path
    rows: tuple[Row, ...] = field(repr=False)
    group: Mapping[str, str] = field(repr=False)
    words: Mapping[str, str] = field(repr=False)
    why: str = ""
    notes: tuple[str, ...] = ()
    problem: str = ""
    question: Question | None = None
    checked: bool = False
    kind: str = ""  # of the truths, "" if nothing is known of them
    named: bool = False  # whether a truth is the name of a class, which a person can change by a word
    texts: bool = False  # whether truths are texts, shown below the images
    remembered: dict[Wanted, Selection] = field(default_factory=dict, repr=False, compare=False)
    alike: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def groups(self) -> dict[str, int]:
        """Group → number of images, in the order of the list."""
        counts: dict[str, int] = {}
        for row in self.rows:
            name = self.group[row.id]
            counts[name] = counts.get(name, 0) + 1
        return counts

    @property
    def alone(self) -> bool:
        """Whether there are images of which no truth could be read, and no question about them is open."""
        return bool(self.rows and self.problem and not self.kind and self.question is None)

    @cached_property
    def outlined(self) -> bool:
        """Whether any truth holds the outline of an object beside its box."""
        return any('"polygons"' in row.target or '"rle"' in row.target for row in self.rows)

    @cached_property
    def by_id(self) -> dict[str, Row]:
        """Id → row."""
        return {row.id: row for row in self.rows}

    @cached_property
    def classes(self) -> list[str]:
        """The names of classes that occur, in natural order; empty if truths are no names."""
        return sorted((name for name in self.groups if name), key=natural) if self.named else []

    def row(self, name: str) -> Row:
        """Return the row with this id. DataError if there is none."""
        if name not in self.by_id:
            raise DataError(f"There is no image {name!r} here any more. Load the page again.")
        return self.by_id[name]

    def with_class(self, name: str) -> dict[tuple[str, ...], list[str]]:
        """Return the images of a class, those that are left out too: their other classes → ids."""
        from vitrail.data.labels import split_labels

        found: dict[tuple[str, ...], list[str]] = {}
        for row in self.rows if self.named else ():
            names = split_labels(row.target)
            if name in names:
                found.setdefault(tuple(one for one in names if one != name), []).append(row.id)
        return found

    def chosen(self, wanted: Wanted) -> Selection:
        """Return the rows that a filter lets through, in order; the last filters are remembered."""
        found = self.remembered.get(wanted)
        if found is None:
            if len(self.remembered) >= _FILTERS:
                self.remembered.clear()
            rows = self.rows if wanted.order is None else self._in_order(wanted.order)
            found = Selection([row for row in rows if self._lets_through(row, wanted)])
            self.remembered[wanted] = found
        return found

    def _in_order(self, ids: Iterable[str]) -> list[Row]:
        return [self.by_id[name] for name in ids if name in self.by_id]

    def _lets_through(self, row: Row, wanted: Wanted) -> bool:
        from vitrail.data.manifest import KEPT

        return (
            (wanted.group is None or self.group[row.id] == wanted.group)
            and (not wanted.out or row.state != KEPT)
            and (wanted.ids is None or row.id in wanted.ids)
            and (
                not wanted.text
                or wanted.text in f"{row.id}\n{row.target if self.texts else self.words[row.id]}".casefold()
            )
        )


@dataclass(frozen=True)
class Wanted:
    """A filter: one group, the images that are left out, those of a finding, those whose name or class has a text.

    `order` are the only images, in the order in which they are shown, without groups.
    """

    group: str | None = None
    out: bool = False
    ids: frozenset[str] | None = None
    text: str = ""
    order: tuple[str, ...] | None = None


class Selection:
    """Rows in order, in pages that are found by the id before them."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    @cached_property
    def _places(self) -> dict[str, int]:
        return {row.id: i for i, row in enumerate(self.rows)}

    def ids_between(self, first: str, last: str) -> list[str]:
        """Return the ids from one image to another, both included; all of them for two empty words.

        Raises:
            DataError: an image is gone, or they are too many to be chosen at once.
        """
        if any(name and name not in self._places for name in (first, last)):
            raise DataError(GONE)
        ends = (
            sorted((self._places[first], self._places[last])) if first and last else [0, len(self.rows) - 1]
        )
        if ends[1] - ends[0] >= MOST_CHOSEN:
            raise DataError(
                f"At most {MOST_CHOSEN:,} images can be chosen at once. Choose a class, or search, to show fewer."
            )
        return [row.id for row in self.rows[ends[0] : ends[1] + 1]]

    def after(self, name: str) -> Sequence[Row]:
        """Return the page behind an id, or the first for "". DataError if the id is gone."""
        if name and name not in self._places:
            raise DataError(GONE)
        start = self._places[name] + 1 if name else 0
        return self.rows[start : start + PAGE]

    def beside(self, name: str) -> tuple[str, str]:
        """Return the ids before and behind an id; "" at an end, or if it is not here."""
        if name not in self._places:
            return "", ""
        i = self._places[name]
        before = self.rows[i - 1].id if i else ""
        return before, self.rows[i + 1].id if i + 1 < len(self.rows) else ""

    def anchors(self) -> list[str]:
        """Return the id before each page: "" before the first."""
        return ["", *(self.rows[end - 1].id for end in range(PAGE, len(self.rows), PAGE))]


def rows_of(layout: Layout) -> list[Row]:
    """Return the images of a layout in the natural order of their names; nothing is decoded."""
    from vitrail.data.manifest import KEPT, QUARANTINED, Row

    entries = {entry.id: entry for entry in layout.entries()}.values()
    return [
        Row(one.id, one.path, one.part, one.target, one.split, one.group, "",
            QUARANTINED if one.trouble else KEPT, one.trouble)
        for one in entries
    ]  # fmt: skip


def list_names(layout: Layout, names: Sequence[Row], history: History, task: str | None = None) -> Listing:
    """Return the images of a layout (`rows_of`) with the decisions about them."""
    from vitrail.data.manifest import KEPT
    from vitrail.data.targets import targets_for

    rows, _ = history.apply(names, lambda row: row)
    try:
        targets = targets_for(layout.truth, task, refusal=layout.refusal)(
            [r for r in rows if r.state == KEPT]
        )
    except VitrailError as error:
        return _of_folders(layout.root, rows, str(error), layout)
    return _ordered(layout.root, rows, targets, layout)


def list_checked(prepared: Prepared, names: Sequence[Row]) -> Listing:
    """Return the images of a check, with their states, in the order of `names`."""
    from dataclasses import replace

    places = {row.id: i for i, row in enumerate(names)}
    rows = sorted(prepared.manifest.rows(state=None), key=lambda row: places.get(row.id, len(places)))
    found = _ordered(prepared.manifest.root, rows, prepared.targets, prepared.layout)
    return replace(found, checked=True, notes=(*prepared.layout.notes, *prepared.notes))


def list_files(place: Path, problem: str) -> Listing:
    """Return the images of a folder that has no layout yet, by their folders; `problem` says why."""
    from vitrail.data.layouts.base import Tree
    from vitrail.data.manifest import Row

    try:
        tree = Tree.look(place)
        rows = [Row(tree.files[name], tree.files[name]) for name in tree.pictures]
        root = tree.root
    except DataError:
        rows, root = [], place
    return _of_folders(root, rows, problem, None)


def _of_folders(root: Path, rows: Iterable[Row], problem: str, layout: Layout | None) -> Listing:
    by_folder = {row.id: row.path.rpartition("/")[0].rpartition("/")[2] for row in rows}
    ordered = _in_groups(sorted(rows, key=lambda row: natural(row.id)), by_folder)
    question = layout.question if layout else None
    return Listing(root, ordered, by_folder, by_folder, problem=problem, question=question)


def _ordered(root: Path, rows: Sequence[Row], targets: Targets[Any], layout: Layout) -> Listing:
    """Return a list of rows that are in the order of their names."""
    strata = {row.id: targets.strata(row) for row in rows}
    named = targets.truth.kind in {"class", "classes"}
    group = {name: own[0] if len(own) == 1 and named else "" for name, own in strata.items()}
    words = {row.id: targets.words(row) if named or targets.texts else "" for row in rows}
    why = f"{layout.why[:1].upper()}{layout.why[1:]}"
    return Listing(
        root, _in_groups(rows, group), group, words, why, layout.notes, question=layout.question,
        kind=targets.truth.kind, named=named, texts=targets.texts,
    )  # fmt: skip


def _in_groups(rows: Sequence[Row], group: Mapping[str, str]) -> tuple[Row, ...]:
    """Return rows group by group, those without a group last; inside a group the order stays."""
    names = sorted(set(group.values()), key=lambda name: (name == "", natural(name)))
    rank = {name: place for place, name in enumerate(names)}
    return tuple(sorted(rows, key=lambda row: rank[group[row.id]]))
