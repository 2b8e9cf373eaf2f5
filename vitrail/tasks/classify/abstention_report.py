"""What a report says of "none of these" and of label sets: figures of the fit, and what the scored images show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vitrail.data.labels import count
from vitrail.metrics.conformal import Promise, least_images, promise
from vitrail.metrics.intervals import Interval, of_groups, wilson
from vitrail.tasks.abstention import EACH_CLASS, Abstention
from vitrail.tasks.classify import label_sets
from vitrail.tasks.result import Column, Number, Table, TableSection

FAR: Mapping[str, str] = MappingProxyType(
    {"digits": "handwritten digits", "noise": "noise", "textures": "stripes, checks and waves"}
)
"""The built-in kinds of other images, in words."""

MOST = 60
"""Largest number of classes in the table of label sets."""


class Scored(NamedTuple):
    """Scored images: scores of all labels (n, k), novelty (n,) if the model has it, true classes (n,), and groups."""

    label_scores: NDArray[Any]
    novelty: NDArray[Any] | None
    truth: NDArray[np.int64]
    groups: Sequence[str]

    def share(self, flags: NDArray[np.bool_]) -> dict[str, float]:
        """Return the share of images with its interval; a group counts once."""
        return of_groups(flags.tolist(), self.groups).to_dict()

    def of(self, chosen: NDArray[np.bool_]) -> Scored:
        """Return some of the images."""
        groups = [group for group, taken in zip(self.groups, chosen.tolist(), strict=True) if taken]
        return Scored(self.label_scores[chosen], None, self.truth[chosen], groups)


def abstention_details(
    abstention: Abstention, labels: Sequence[str], scored: Scored | None = None
) -> dict[str, Any]:
    """Return the content of report.json; without scored images only the figures of the fit."""
    fit = abstention.model_dump(exclude={"novelty", "label_scores", "parts", "classes"})
    distances = [f"{part.place}, {'relative' if part.relative else 'plain'}" for part in abstention.parts]
    details: dict[str, Any] = {**fit, "distances": distances, "pictures": len(abstention.novelty)}
    everyone = len(label_sets.pooled(abstention))
    details["sets"] = {"pictures": everyone, "promise": _plain(promise(everyone, abstention.error))}
    if scored is not None and abstention.parts and scored.novelty is not None:
        flags = label_sets.is_novel(abstention, torch.from_numpy(scored.novelty)).numpy()
        details["false_alarms"] = scored.share(flags)
    if scored is not None and details["sets"]["promise"]:
        details["sets"] |= _measured(abstention, scored)
    details["sets"]["classes"] = {
        label: _of_class(abstention, place, scored) for place, label in enumerate(labels)
    }
    return details


def _plain(found: Promise | None) -> dict[str, Any] | None:
    return None if found is None else {name: round(value, 6) for name, value in found._asdict().items()}


def _measured(abstention: Abstention, scored: Scored) -> dict[str, Any]:
    members = label_sets.members(abstention, scored.label_scores, each_class=False)
    sizes = members.sum(1)
    return {
        "right": scored.share(members[np.arange(len(members)), scored.truth]),
        "empty": scored.share(sizes == 0),
        "labels": round(float(sizes.mean()), 4),
    }


def _of_class(abstention: Abstention, place: int, scored: Scored | None) -> dict[str, Any]:
    """Return the images of a class, its own promise if they are enough, and its share of right sets."""
    images = len(abstention.label_scores[place])
    own = promise(images, abstention.error) if images >= EACH_CLASS else None
    row: dict[str, Any] = {"pictures": images, "promise": _plain(own), "right": None}
    if scored is None or own is None or not (chosen := scored.truth == place).any():
        return row
    some = scored.of(chosen)
    members = label_sets.members(abstention, some.label_scores, each_class=True)
    return {**row, "right": some.share(members[:, place])}


def abstention_sections(details: Mapping[str, Any]) -> tuple[TableSection, ...]:
    """Return the sections of a page from the content of report.json."""
    return (_novelty(details), _sets(details))


def _novelty(details: Mapping[str, Any]) -> TableSection:
    error = f"{100 * details['error']:g} %"
    columns = (
        Column("images of"),
        Column("answered “none of these”", right=True, spread=True),
        Column("AUROC", right=True, spread=True),
        Column("images", right=True),
    )
    if details["reason"]:
        return TableSection(
            "None of these", Table(columns, ()), f"Not available: {details['reason']}.", "None of these"
        )
    rows: list[tuple[Any, ...]] = []
    if near := details["near"]:
        rows.append(("a class left out in turn", *_detected(near)))
    rows += [(FAR.get(kind, kind), *_detected(one)) for kind, one in details["far"].items()]
    if alarms := details.get("false_alarms"):
        rows.append(("the classes themselves (false alarms)", Number.of(alarms), Number(None), ""))
    note = (
        f"The limit is set so that {error} of images of the known classes are taken for none of these, on "
        f"{count(details['pictures'], details['split'] + ' image')}. Distances: {'; '.join(details['distances'])}. "
        f"{_near_note(details)}An image that resembles the training images is never far: if yours are digits, digits "
        "are not noticed."
    )
    return TableSection(
        "None of these", Table(columns, tuple(rows)), note, "None of these", _summary(details)
    )


def _near_note(details: Mapping[str, Any]) -> str:
    if not details["near"]:
        return "With so few classes or images, none could be left out to measure what is noticed of a new class. "
    if details["learned"]:
        return (
            "The network itself has learned the class that was left out, so that a class it never saw is noticed less "
            "often than this. "
        )
    return "The network has never seen the class that was left out. "


def _detected(found: Mapping[str, Any]) -> tuple[Number, Number, int]:
    return Number.of(found["noticed"]), Number.of({**found["auroc"], "unit": ""}), int(found["unknown"])


def _summary(details: Mapping[str, Any]) -> str:
    """Return the sentence for the command line."""
    parts = []
    if near := details["near"]:
        what = "a class left out of the fit" if details["learned"] else "a class it never saw"
        parts.append(f"{what} is noticed in {_share(Interval(**near['noticed']), near['unknown'])}")
    if far := details["far"]:
        images = sum(one["unknown"] for one in far.values())
        found = sum(one["noticed"]["value"] * one["unknown"] for one in far.values())
        parts.append(f"a picture of something else in {_share(wilson(found, images), images)}")
    measured = ", ".join(parts) or "not measured"
    return f"none of these: {measured}, at {100 * details['error']:g} % false alarms"


def _share(share: Interval, images: int) -> str:
    return f"{100 * share.value:.0f} % ({100 * share.low:.0f} – {100 * share.high:.0f}, {images:,} images)"


def _sets(details: Mapping[str, Any]) -> TableSection:
    sets, columns = (
        details["sets"],
        (
            Column("sets with the right label"),
            Column("promised", right=True),
            Column("this file delivers"),
            Column("on these images", right=True, spread=True),
            Column("calibrated on", right=True),
        ),
    )
    heading = "Label sets (--sets)"
    if not sets["promise"]:
        least = least_images(details["error"])
        note = (
            f"Too few images: {sets['pictures']} {details['split']} images (groups count once) promise nothing at "
            f"{100 * details['error']:g} % errors; {least} are needed."
        )
        return TableSection(heading, Table(columns, ()), note, "Label sets")
    rows = [("all classes", *_kept(sets))]
    alone = {label: row for label, row in sets["classes"].items() if row["promise"]}
    rows += [(label, *_kept(row)) for label, row in list(alone.items())[:MOST]]
    return TableSection(
        heading, Table(columns, tuple(rows)), _set_note(details, len(alone)), "Label sets", _set_summary(sets)
    )


def _kept(row: Mapping[str, Any]) -> tuple[Any, ...]:
    own = row["promise"]
    right = Number.of(row["right"]) if row.get("right") else Number(None, why="no scored images")
    return (
        f"{100 * own['promised']:g} %",
        f"{100 * own['low']:.1f} to {100 * own['high']:.1f} %",
        right,
        row["pictures"],
    )


def _set_note(details: Mapping[str, Any], alone: int) -> str:
    sets = details["sets"]
    note = (
        f"A set holds every label that cannot be ruled out at {100 * details['error']:g} % errors; an empty set means "
        "none of these. "
    )
    if "labels" in sets:
        empty = Number.of(sets["empty"]).text()
        note += f"On these images a set has {sets['labels']:.2f} labels, and {empty} are empty. "
    few = len(sets["classes"]) - alone
    if few:
        note += (
            f"A class alone gets a promise (--each-class) from {EACH_CLASS} {details['split']} images on: "
            f"{count(few, 'class', 'classes')} of {len(sets['classes'])} have fewer."
        )
    return note.strip()


def _set_summary(sets: Mapping[str, Any]) -> str:
    found = Promise(**sets["promise"])
    right = f"; on these images {Number.of(sets['right']).text()}" if "right" in sets else ""
    return f"label sets: {found}{right}"
