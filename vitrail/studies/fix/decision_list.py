"""The list of doubted labels as a table: written for the user, who fills in decisions, and read again."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from vitrail.core.errors import DataError, UnknownNameError, UsageError
from vitrail.core.files import replace
from vitrail.core.text import command
from vitrail.data.decisions import Decision, What
from vitrail.data.labels import count, shorten
from vitrail.data.manifest import KEPT, TEST, Row
from vitrail.data.own_outputs import FIX
from vitrail.studies.fix.label_doubts import Doubts
from vitrail.studies.fix.run_images import RunImages

WORDS: Mapping[str, What] = MappingProxyType({"keep": "keep", "drop": "drop", "relabel": "relabel"})
"""The decisions that a table may hold; an empty cell decides nothing."""


def write_list(path: Path, doubts: Doubts) -> None:
    """Write the list as CSV; the columns `decision` and `new_label` are empty."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(FIX)
            for why, row, score in ((one.why, one.row, one.score) for one in doubts.entries):
                numbers = (f"{score.confidence:.4f}", f"{score.margin:.4f}")
                cells = (row.id, row.split, score.label, score.proposal, *numbers, why)
                writer.writerow([*cells, "", "", row.hash])

    replace(path, write)


def read_list(path: Path, images: RunImages) -> list[Decision]:
    """Return the decisions of a table with the columns id and decision; `new_label` and `hash` may be left out.

    A relabel without a new label takes the one that the image looks like.

    Raises:
        DataError: the table cannot be read, names an unknown image, or an image that changed since it was written.
    """
    entries = [(line, cells) for line, cells in _cells(path) if cells.get("decision", "").strip()]
    rows = {row.id: row for row in images.now.rows(state=None)}
    changed, decisions = [], []
    for line, cells in entries:
        where, id = f"Line {line} of {path}", cells.get("id", "")
        what = cells["decision"].strip().casefold()
        if what not in WORDS:
            raise DataError(f"{where}: {cells['decision']!r} is no decision. Write {', '.join(WORDS)}.")
        if id not in rows:
            raise DataError(
                f"{where}: {id!r} is no image of {images.run.folder}, or changed since it was trained. Make the list "
                f"again: {command('fix', images.run.folder)}"
            )
        stated = cells.get("hash", "")
        if stated and stated != rows[id].hash:
            changed.append(id)
        label = cells.get("new_label", "").strip() or cells.get("looks_like", "").strip()
        decisions.append((what, id, label if what == "relabel" else ""))
    if changed:
        raise DataError(
            f"{count(len(changed), 'decision')} in {path} about an image that changed since the list was made: "
            f"{shorten(changed)}. Nothing was decided. Look at it again: {command('fix', images.run.folder)}"
        )
    return checked(decisions, images)


def asked_for(
    relabel: Sequence[str], drop: Sequence[str], keep: Sequence[str], images: RunImages
) -> list[Decision]:
    """Return the decisions of a command line; a relabel is IMAGE=LABEL."""
    known = {row.id for row in images.now.rows(state=None)}
    decisions = [("drop", id, "") for id in drop] + [("keep", id, "") for id in keep]
    for text in relabel:
        ways = [text[:at] for at, sign in enumerate(text) if sign == "=" and text[:at] in known]
        if "=" not in text:
            raise UsageError(f"--relabel {text}: name the image and its label: --relabel cat/7.jpg=dog")
        id = ways[-1] if ways else text.rpartition("=")[0]
        decisions.append(("relabel", id, text[len(id) + 1 :]))
    trained = {row.id for row in images.run.manifest(images.now.root).rows(state=None)}
    for _, id, _ in decisions:
        if id in trained - known:
            raise DataError(
                f"{id} changed since {images.run.folder} was trained, or is gone. Nothing was decided. Look at the "
                f"list again: {command('fix', images.run.folder)}"
            )
        if id not in known:
            raise UnknownNameError("image", id, known, f"See the list: {command('fix', images.run.folder)}")
    return checked(decisions, images)


def checked(decisions: Iterable[tuple[str, str, str]], images: RunImages) -> list[Decision]:
    """Return decisions with the contents of their images.

    Raises:
        DataError: two decisions about one image, a label that cannot be used, or a class without training images.
    """
    rows = {row.id: row for row in images.now.rows(state=None)}
    reason = f"label looked at in {images.run.folder.name}"
    made: dict[str, Decision] = {}
    for what, id, label in decisions:
        if id in made:
            raise DataError(f"There are two decisions about {id}. Leave one of them out.")
        if what == "relabel":
            _refuse_label(images, rows[id], label)
        hashes = (rows[id].hash,) if rows[id].hash else ()
        made[id] = Decision(0, WORDS[what], (id,), label, reason, "", hashes)
    _refuse_empty(images, made)
    return list(made.values())


def _refuse_label(images: RunImages, row: Row, label: str) -> None:
    """Raise a DataError if the run's task cannot use this label, such as an unknown class."""
    targets = images.examined.gather(images.before.rows())
    try:
        if not label:
            raise DataError("it is empty")
        targets.read(row._replace(target=label), images.now.root)
    except (DataError, UnknownNameError) as error:
        raise DataError(
            f"{row.id} cannot be labelled {label!r}: {str(error).rstrip('.')}. To add a class, label it in the data "
            "and train again."
        ) from error


def _refuse_empty(images: RunImages, made: Mapping[str, Decision]) -> None:
    """Raise a DataError if a class would have no training image any more: the model could never answer it."""
    targets = images.examined.gather(images.before.rows())
    before, after = Counter[str](), Counter[str]()
    for row in images.now.rows(state=None):
        decision = made.get(row.id)
        if row.state == KEPT and row.split != TEST:
            before.update(targets.strata(row))
        stays = row.state == KEPT if decision is None else decision.what != "drop"
        label = decision.value if decision and decision.what == "relabel" else row.target
        if stays and row.split != TEST:
            after.update(targets.strata(row._replace(target=label)))
    emptied = [name for name in before if not after[name]]
    if emptied:
        raise DataError(
            f"These decisions would leave no training image of {shorten(emptied)}. Nothing was decided. Keep one, or "
            "remove the class from the data and train again."
        )


def _cells(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            rows = [
                (reader.line_num, {key: cell or "" for key, cell in row.items() if key}) for row in reader
            ]
            names = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} cannot be read: {why}. Name a table that vitrail fix wrote.") from error
    missing = [name for name in ("id", "decision") if name not in names]
    if missing:
        raise DataError(
            f"{path} has no column {' and no column '.join(missing)}. It has: {', '.join(names) or 'none'}. Name a "
            "table that vitrail fix wrote, with the column decision filled in."
        )
    return rows
