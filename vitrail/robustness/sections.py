"""Measurements as a result: curves and tables with intervals, of one model or of several on one figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.data.labels import count
from vitrail.metrics.intervals import Interval, of_groups
from vitrail.robustness.corruptions import GROUPS
from vitrail.robustness.measurement import (
    ATTACKED,
    CLEAN,
    CORRUPTED,
    DROPPED,
    FGSM,
    PGD,
    RANDOM,
    SALIENT,
    SHUFFLED,
    UNCHANGED,
    Disturbance,
    Measured,
)
from vitrail.tasks.result import Column, Curve, Number, Result, Section, Table, TableSection

Models = Mapping[str, Measured]
"""Measurements by the names of models, of the same images; one model has the name ""."""

HEADINGS: Mapping[str, str] = MappingProxyType(
    {
        CORRUPTED: "Robustness to corruptions",
        DROPPED: "Robustness to missing patches",
        SHUFFLED: "Robustness to shuffled patches",
        ATTACKED: "Robustness to attacks",
    }
)
NUMBERS, STEPS = ", in numbers", ", step by step"

NOTES: Mapping[str, str] = MappingProxyType(
    {
        CORRUPTED: (
            "Kinds and severities of Hendrycks and Dietterich (2019): their severities 1, 3 and 5, on the pixels of "
            "the input. Severity 0 is the image as it is."
        ),
        DROPPED: (
            "Patches are squares of one grid of {grid}, replaced by the mean colour: the same random ones for every "
            "model, and those that count most for the model's own answer (gradient × input)."
        ),
        SHUFFLED: "The image is cut into so many pieces a side, which change places. 1 is the image as it is.",
        ATTACKED: (
            "Each pixel may change by at most so many of 255 grey values. FGSM is one step, PGD 20 small ones from "
            "three starts. The attacks know the network, so this is what a determined adversary reaches at least, not "
            "what happens by chance."
        ),
    }
)

AXES: Mapping[str, str] = MappingProxyType(
    {
        CORRUPTED: "severity",
        DROPPED: "percent of the patches dropped",
        SHUFFLED: "pieces a side",
        ATTACKED: "largest change of a pixel, of 255",
    }
)
RIGHT = "right, %"


def result_of(models: Models, called: str) -> Result:
    """Return the result of a measurement; `called` describes the images ("300 of 1,500 test images …")."""
    sections = tuple(chain.from_iterable(_sections(models, category) for category in HEADINGS))
    tables = [section.table for section in sections if isinstance(section, TableSection)]
    verdict = " ".join([f"Robustness on {called}.", *(_verdict(name, one) for name, one in models.items())])
    first = next(iter(models.values()))
    numbers = (
        {name: number(first, kinds) for name, kinds in summary(first).items()} if len(models) == 1 else {}
    )
    named = {name: one._replace(name=name, fact=name) for name, one in numbers.items()}
    return Result("as they are", named, verdict, tables, sections, {"robustness": _details(models, called)})


def is_robustness(section: Section) -> bool:
    """Return whether a section was made here, so that a new measurement replaces it."""
    return section.heading.removesuffix(NUMBERS).removesuffix(STEPS) in HEADINGS.values()


def summary(measured: Measured) -> dict[str, list[Disturbance]]:
    """Return the disturbances whose mean stands for a category, by what is said of them; the clean images are first."""
    found = {
        "as they are": [UNCHANGED],
        "with corruptions": [one for one in measured.right if one.category == CORRUPTED],
        "without half of the patches": [Disturbance(DROPPED, RANDOM, 0.5)],
        "without the half that counts most": [Disturbance(DROPPED, SALIENT, 0.5)],
        "with shuffled patches": [one for one in measured.right if one.category == SHUFFLED],
    }
    if measured.strengths(ATTACKED):
        least = min(measured.strengths(ATTACKED))
        found[f"under attacks of {least:g} of 255"] = [Disturbance(ATTACKED, PGD, least)]
    return {name: kinds for name, kinds in found.items() if all(one in measured.right for one in kinds)}


def shares(measured: Measured, kinds: Sequence[Disturbance]) -> NDArray[np.float64]:
    """Return for each image under how many of these disturbances it is answered correctly, as a share: (n,)."""
    found: NDArray[np.float64] = np.mean([measured.right[one] for one in kinds], axis=0, dtype=np.float64)
    return found


def interval(measured: Measured, kinds: Sequence[Disturbance]) -> Interval:
    """Return the mean over images and disturbances with its interval over images, in which duplicates count once.

    Of several disturbances it is a little wide: an image may be right under a part of them.
    """
    right = shares(measured, kinds)
    return of_groups(right.tolist(), measured.groups[: len(right)])


def number(measured: Measured, kinds: Sequence[Disturbance]) -> Number:
    """Return the mean over images and disturbances with its interval, for tables."""
    return Number.of(interval(measured, kinds).to_dict())


def _sections(models: Models, category: str) -> Iterator[Section]:
    """Yield the curve and the table of a category; nothing if it was not measured."""
    first = next(iter(models.values()))
    if not first.strengths(category):
        return
    note = NOTES[category].format(grid=f"{first.grid[0]} × {first.grid[1]}")
    images = count(len(next(first.right[one] for one in first.right if one.category == category)), "image")
    note = f"{images}; bands are 95 % intervals. {note}"
    yield _curve(HEADINGS[category], AXES[category], note, dict(_lines(models, category)))
    yield TableSection(HEADINGS[category] + NUMBERS, _table(models, category), f"{images} each.")
    if category == ATTACKED and len(models) == 1:
        yield _steps(first)


def _curve(heading: str, x: str, note: str, lines: Mapping[str, Sequence[tuple[float, Interval]]]) -> Curve:
    series = {name: [(at, 100 * one.value) for at, one in line] for name, line in lines.items()}
    bands = {name: [(100 * one.low, 100 * one.high) for _, one in line] for name, line in lines.items()}
    return Curve(heading, series, x, RIGHT, note, bands)


def _lines(models: Models, category: str) -> Iterator[tuple[str, list[tuple[float, Interval]]]]:
    """Yield the lines of a figure, each with its name and its points; of corruptions a line is the mean of a group."""
    for model, measured in models.items():
        clean = Disturbance(CLEAN)
        attacked = len(measured.right[_first(measured, ATTACKED)]) if category == ATTACKED else None
        start = of_groups(measured.right[clean][:attacked].tolist(), measured.groups[:attacked])
        for name, kinds in _groups(measured, category, alone=len(models) == 1).items():
            points = [(1.0 if category == SHUFFLED else 0.0, start)]
            for strength in measured.strengths(category):
                some = [Disturbance(category, kind, strength) for kind in kinds]
                points.append((_place(category, strength), interval(measured, some)))
            yield ", ".join(part for part in (model, name) if part), points


def _first(measured: Measured, category: str) -> Disturbance:
    return next(one for one in measured.right if one.category == category)


def _groups(measured: Measured, category: str, alone: bool) -> dict[str, Sequence[str]]:
    """Return the kinds of each line of a figure by its name."""
    kinds = measured.kinds(category)
    if category == CORRUPTED:
        return dict(GROUPS) if alone else {"": kinds}
    return {"": kinds} if category == SHUFFLED else {kind: [kind] for kind in kinds}


def _place(category: str, strength: float) -> float:
    return 100 * strength if category == DROPPED else strength


def _table(models: Models, category: str) -> Table:
    """Return one row a kind, and a model if there are several, with a column a strength."""
    first = next(iter(models.values()))
    strengths = first.strengths(category)
    heads = [f"{_place(category, one):g}{' %' if category == DROPPED else ''}" for one in strengths]
    columns = (
        Column(AXES[category]),
        *([Column("model")] if len(models) > 1 else []),
        *(Column(head, right=True, spread=True) for head in heads),
    )
    rows = [
        (*((kind, model) if len(models) > 1 else (kind,)), *_cells(measured, category, kind, strengths))
        for kind in dict.fromkeys(chain.from_iterable(one.kinds(category) for one in models.values()))
        for model, measured in models.items()
        if kind in measured.kinds(category)
    ]
    return Table(columns, tuple(rows))


def _cells(measured: Measured, category: str, kind: str, strengths: Sequence[float]) -> tuple[Number, ...]:
    return tuple(number(measured, [Disturbance(category, kind, strength)]) for strength in strengths)


def _steps(measured: Measured) -> Curve:
    """Return how many images are right after each step of PGD: more steps never help the defender."""
    images = len(measured.right[_first(measured, ATTACKED)])
    series = {
        f"{epsilon:g} of 255": [(float(step), 100 * int(left) / images) for step, left in enumerate(counts)]
        for epsilon, counts in measured.lasting.items()
    }
    note = f"PGD on {count(images, 'image')}. Each line begins with what the smaller change left. "
    return Curve(HEADINGS[ATTACKED] + STEPS, series, "steps", RIGHT, note + " ".join(attack_notes(measured)))


def attack_notes(measured: Measured) -> list[str]:
    """Return whether the attacks found what there is to find: signs of masked gradients, and late successes."""
    notes = []
    for epsilon, counts in measured.lasting.items():
        once, many = (measured.right[Disturbance(ATTACKED, kind, epsilon)] for kind in (FGSM, PGD))
        if missed := int((many & ~once).sum()):
            notes.append(
                f"At {epsilon:g} of 255 FGSM fools {count(missed, 'image')} that PGD does not: gradients may be "
                "masked, and stronger attacks may find more."
            )
        last = max(1, (len(counts) - 1) // 4)
        if len(counts) > last and (late := int(counts[-1 - last] - counts[-1])):
            notes.append(
                f"At {epsilon:g} of 255 the last {last} steps still fooled {count(late, 'image')}; more may fool more."
            )
    return notes or ["The last steps fooled no further image, and FGSM none that PGD does not."]


def _verdict(name: str, measured: Measured) -> str:
    parts = []
    for what, kinds in summary(measured).items():
        found, images = interval(measured, kinds), len(measured.right[kinds[0]])
        right = f"{100 * found.value:.1f} % ({100 * found.low:.1f} – {100 * found.high:.1f})"
        on = "" if images == len(measured.rows) else f", on {count(images, 'image')}"
        parts.append(f"{right} right {what}" if what == "as they are" else f"{right} {what}{on}")
    return f"{name + ': ' if name else ''}{'; '.join(parts)}."


def _details(models: Models, called: str) -> dict[str, Any]:
    """Return all numbers as plain data for report.json."""
    return {
        "images": called,
        "models": [
            {
                "model": name,
                "grid": list(measured.grid),
                "scores": [
                    {**one._asdict(), "images": len(right), **interval(measured, [one]).to_dict()}
                    for one, right in measured.right.items()
                ],
                "right_after_steps": {
                    f"{epsilon:g}": counts.tolist() for epsilon, counts in measured.lasting.items()
                },
            }
            for name, measured in models.items()
        ],
    }
