"""What a check found, as cards: images, one decision each, and what was decided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from vitrail.core.errors import DataError
from vitrail.data.decisions import Decision, History, What
from vitrail.data.findings import Finding
from vitrail.data.labels import join_labels, natural
from vitrail.data.manifest import DROPPED, Row
from vitrail.data.prepare import Prepared
from vitrail.reports.check_summary import TITLES

IMAGES = 10
"""Images shown on a card; the wall shows all."""

MOST_CARDS = 60

KEEP_THIS, DROP_THIS = "Keep this one", "Leave this one out"
KEEP_EACH, FINE = "Keep one of each", "It is fine"
DROP_ALL, DROP_TRAIN, SAME_CLASS = "Leave {} out", "Leave the {} of training out", "All of them are {}"


class Step(NamedTuple):
    """One decision to be written."""

    what: What
    ids: tuple[str, ...]
    value: str


class Choice(NamedTuple):
    """A button: its text, with "{}" for `number`, and the decisions that it writes."""

    text: str
    number: str
    steps: tuple[Step, ...]


class Picture(NamedTuple):
    """An image on a card, with the choices that concern it alone."""

    row: Row
    words: str
    choices: tuple[tuple[int, Choice], ...]


class Card(NamedTuple):
    """A finding: `choices` by number, for all of it; `decided` are the decisions in force about it."""

    key: str
    finding: Finding
    title: str
    pictures: tuple[Picture, ...]
    choices: tuple[tuple[int, Choice], ...]
    decided: tuple[Decision, ...]

    @property
    def more(self) -> int:
        """The number of images that are not shown."""
        return max(0, len(self.finding.ids) - len(self.pictures))


def cards(prepared: Prepared, history: History) -> list[Card]:
    """Return a card for each finding: open and grave ones first, decided ones last."""
    rows = {row.id: row for row in prepared.report.rows}
    found = [_card(one, rows, prepared, history) for one in prepared.report.findings]
    ordered = sorted(found, key=lambda card: (bool(card.decided), not card.finding.grave))
    return ordered[:MOST_CARDS]


def steps_of(prepared: Prepared, key: str, number: int) -> tuple[Step, ...]:
    """Return the decisions of a button. DataError if its finding is gone."""
    rows = {row.id: row for row in prepared.report.rows}
    for finding in prepared.report.findings:
        if key_of(finding) == key:
            choices = _choices(finding, rows, prepared)
            if 0 <= number < len(choices):
                return choices[number][1].steps
    raise DataError("This finding has changed since the page was loaded. Load the page again.")


def key_of(finding: Finding) -> str:
    """Return the key of a finding: the same as long as it concerns the same images."""
    told = "\0".join((finding.kind, *(finding.ids or (finding.text,))))
    return blake2b(told.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()


def title_of(finding: Finding) -> str:
    """Return the title of a finding."""
    return TITLES.get(finding.kind, finding.kind.capitalize())


def _card(finding: Finding, rows: Mapping[str, Row], prepared: Prepared, history: History) -> Card:
    numbered = list(enumerate(_choices(finding, rows, prepared)))
    shown = [rows[name] for name in finding.ids if name in rows][:IMAGES]
    pictures = tuple(
        Picture(
            row,
            prepared.targets.words(row),
            tuple((i, choice) for i, (of, choice) in numbered if of == row.id),
        )
        for row in shown
    )
    whole = tuple((i, choice) for i, (of, choice) in numbered if not of)
    decided = tuple(_decided(finding, history))
    return Card(key_of(finding), finding, title_of(finding), pictures, whole, decided)


def _decided(finding: Finding, history: History) -> Iterator[Decision]:
    """Yield the decisions in force about a finding: made for it, or together about all of its images."""
    undone, ids, key = history.undone(), set(finding.ids), key_of(finding)
    active = [d for d in history.decisions if d.number not in undone and d.what not in ("undo", "quarantine")]
    covered = {name for one in active for name in one.ids}
    whole = bool(ids) and ids <= covered
    for one in active:
        if one.value == key or (whole and ids & set(one.ids)):
            yield one


def _choices(finding: Finding, rows: Mapping[str, Row], prepared: Prepared) -> list[tuple[str, Choice]]:
    """Return the buttons of a finding: the id of the image that one concerns ("": all), and the choice."""
    key = key_of(finding)
    named = [rows[name] for name in finding.ids if name in rows]
    of_one = [(row.id, one) for row in named[:IMAGES] for one in _of_image(finding, row, named, key)]
    of_all = [("", one) for one in _of_all(finding, named, prepared, key)]
    return [*of_all, *of_one]


def _of_image(finding: Finding, row: Row, named: Sequence[Row], key: str) -> Iterator[Choice]:
    others = tuple(one.id for one in named if one.id != row.id)
    if finding.kind == "conflict":
        yield Choice(KEEP_THIS, "", (Step("keep", (row.id,), key), Step("drop", others, key)))
    elif finding.kind in {"doubtful", "leak"} and row.state != DROPPED:
        yield Choice(DROP_THIS, "", (Step("drop", (row.id,), key),))


def _of_all(finding: Finding, named: Sequence[Row], prepared: Prepared, key: str) -> Iterator[Choice]:
    ids = tuple(row.id for row in named)
    fine = Choice(FINE, "", (Step("keep", (), key),))
    if finding.kind in {"twins", "similar"}:
        firsts = {row.group or row.id: row.id for row in reversed(named)}
        keep = tuple(name for name in ids if name in set(firsts.values()))
        rest = tuple(name for name in ids if name not in set(keep))
        yield Choice(KEEP_EACH, "", (Step("keep", (), key), Step("drop", rest, key)))
        yield fine
    elif finding.kind == "leak":
        train = tuple(row.id for row in named if row.split == "train")
        if train:
            yield Choice(DROP_TRAIN, f"{len(train):,}", (Step("drop", train, key),))
        yield fine
    elif finding.kind == "spelling" and prepared.targets.truth.kind == "class":
        yield from _spellings(finding, prepared, key)
        yield fine
    elif finding.kind in {"flat", "odd size"} or (finding.grave and ids and finding.kind != "doubtful"):
        yield Choice(DROP_ALL, f"{len(ids):,}", (Step("drop", ids, key),))
        if finding.kind in {"flat", "odd size"}:
            yield fine
    else:
        yield fine


def _spellings(finding: Finding, prepared: Prepared, key: str) -> Iterator[Choice]:
    """Yield a choice for each spelling of one class: all images take it."""
    alike: dict[str, list[Row]] = {}
    for row in prepared.report.rows:
        for name in prepared.targets.strata(row):
            if repr(name) in finding.text:
                alike.setdefault(name, []).append(row)
    for name in sorted(alike, key=natural):
        others = tuple(row.id for other, rows in alike.items() if other != name for row in rows)
        if len(alike) > 1:
            yield Choice(SAME_CLASS, name, (Step("relabel", others, join_labels([name])),))


def title_of_key(prepared: Prepared, key: str) -> str:
    """Return the title of a finding as the reason that is written beside a decision; "" if it is gone."""
    title = next((title_of(one) for one in prepared.report.findings if key_of(one) == key), "")
    return title[:1].lower() + title[1:]
