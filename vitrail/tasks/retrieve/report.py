"""The report of retrieval: scores with intervals and what chance would reach, and examples of both directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.data.labels import count
from vitrail.data.manifest import group_key
from vitrail.metrics.intervals import bootstrap, resampled, units_of
from vitrail.metrics.recall_at import chance
from vitrail.tasks.resampling import resampling_of, told, warnings
from vitrail.tasks.result import (
    Cell,
    Column,
    Gallery,
    Limits,
    Number,
    Result,
    Scope,
    Shot,
    Table,
    TableSection,
    measured,
)
from vitrail.tasks.retrieve.evaluation import AT, TO_IMAGE, TO_TEXT, RetrievalEvaluation, Whole

EXAMPLES = 6
"""Images whose nearest captions are shown, half of them wrong if there are as many."""

QUERIES = 4
"""Captions whose nearest images are shown."""

NEAREST = 3
"""Captions beside an image."""

FOUND = 5
"""Images of a caption."""

CALLED: Mapping[str, str] = {TO_TEXT: "image → caption", TO_IMAGE: "caption → image"}


def result_of(evaluation: RetrievalEvaluation, scope: Scope) -> Result:
    """Return everything that reports contain about these images and captions."""
    whole, rows = evaluation.whole(), evaluation.rows
    numbers = _numbers(evaluation)
    by_chance = chances(whole)
    resampling = resampling_of(rows, {})
    test = {
        "pictures": len(rows),
        "captions": len(whole.pairs.image),
        "different_captions": whole.pairs.texts,
        **{name: number.to_dict() for name, number in numbers.items()},
        "chance": {name: round(value, 6) for name, value in by_chance.items()},
        **({"resampling": resampling} if resampling else {}),
        **({"twins": len(scope.leaked)} if scope.leaked else {}),
    }
    table = _table(numbers, by_chance, whole)
    note = " ".join([_NOTE, *told(test)])
    sections = (
        TableSection("Recall", table, note),
        *_examples(evaluation, whole),
        Limits("", tuple(_limits(whole, scope))),
    )
    verdict = _verdict(numbers, by_chance, whole, scope, warnings(resampling))
    return Result(RetrievalEvaluation.main, numbers, verdict, (table,), sections, {"test": test})


_NOTE = (
    "Recall at k: the share of images of which one of the right captions is among the k nearest of all captions here, "
    "and the share of captions of which a right image is among the k nearest images. Chance is what a random order "
    "would reach: recall depends on how many candidates there are, so numbers of different sets do not compare. Equal "
    "captions are one candidate, and right for each of their images. Intervals draw images with their captions again; "
    "the candidates stay the same."
)


def chances(whole: Whole) -> dict[str, float]:
    """Return recall at each number of candidates that a random order would reach, by the names of the scores."""
    by_chance = {}
    for k in AT:
        by_chance[f"{TO_TEXT}_{k}"] = float(chance(whole.pairs, k).mean())
        # Captions count as often as they stand beside an image, as in the scores.
        by_chance[f"{TO_IMAGE}_{k}"] = float(chance(whole.pairs.turned(), k)[whole.pairs.text].mean())
    return by_chance


def _numbers(evaluation: RetrievalEvaluation) -> dict[str, Number]:
    """Return all scores with intervals: recall at 1 in both directions first."""
    groups = [group_key(row) for row in evaluation.rows]
    values = evaluation.resample(np.ones(len(groups)))
    drawn = [evaluation.resample(counts) for counts in resampled(groups)]
    numbers = {}
    for name, value in values.items():
        samples = np.array([one[name] for one in drawn])
        score = bootstrap(value, samples, len(groups), units_of(groups).groups)
        rank = name.endswith("_rank")
        numbers[name] = Number(
            score.value,
            score.low,
            score.high,
            unit="" if rank else "%",
            better="lower" if rank else "higher",
            name=_name(name),
            fact="recall@1, mean of both directions" if name == RetrievalEvaluation.main else "",
            why=getattr(score, "why", ""),
        )
    return numbers


def _name(score: str) -> str:
    if score == RetrievalEvaluation.main:
        return "recall@1"
    side, _, at = score.rpartition("_")
    return f"{CALLED[side]} {'median rank' if at == 'rank' else f'@{at}'}"


def _table(numbers: Mapping[str, Number], by_chance: Mapping[str, float], whole: Whole) -> Table:
    columns = (
        Column("direction"),
        Column("candidates", right=True),
        Column("median rank", right=True),
        Column("at"),
        Column("recall", right=True, spread=True),
        Column("chance", right=True),
    )
    candidates = {TO_TEXT: whole.pairs.texts, TO_IMAGE: whole.pairs.images}
    rows: list[tuple[Cell, ...]] = []
    for side, among in candidates.items():
        for k in AT:
            recall = numbers[f"{side}_{k}"] if k < among else Number(None)
            front = (CALLED[side], among, numbers[f"{side}_rank"]) if k == AT[0] else ("", "", "")
            rows.append((*front, f"@{k}", recall, Number(by_chance[f"{side}_{k}"])))
    return Table(columns, tuple(rows))


def _verdict(
    numbers: Mapping[str, Number],
    by_chance: Mapping[str, float],
    whole: Whole,
    scope: Scope,
    doubts: list[str],
) -> str:
    """Return one sentence: recall at 1 in both directions, against chance, on how many images and captions."""
    sides = [f"{CALLED[side]} {_with_span(numbers[f'{side}_1'])}" for side in CALLED]
    lucky = [measured(by_chance[f"{side}_1"], "%", 2) for side in CALLED]
    seen = f"{scope.counted(whole.pairs.images)} with {count(whole.pairs.texts, 'different caption')}"
    sentence = f"recall@1 {', '.join(sides)} (chance {' and '.join(lucky)}), on {seen}"
    return "; ".join([sentence, *doubts]) + "."


def _with_span(number: Number) -> str:
    return number.text() if number.low is None else f"{number.text()}, {number.span()}"


def _limits(whole: Whole, scope: Scope) -> Iterator[str]:
    yield "It ranks: a text that describes no image still has nearest images. A cosine is not a probability."
    if scope.leaked:
        yield f"{count(len(scope.leaked), 'image')} scored here have a duplicate among the training images."
    shared = int((np.bincount(whole.pairs.text) > 1).sum())
    if shared:
        yield f"{count(shared, 'caption')} stand beside several images, each of which counts as right."


def _examples(evaluation: RetrievalEvaluation, whole: Whole) -> Iterator[Gallery]:
    """Yield the nearest captions of some images, and the nearest images of some captions."""
    ids, partners = [row.id for row in evaluation.rows], whole.pairs.partners()
    shots = []
    for place in _mixed(whole.to_text, EXAMPLES):
        cosines = whole.vectors @ whole.images[place]
        right = set(partners[place].tolist())
        said = [
            f"{_mark(text in right)} {_short(whole.texts[text])} {cosines[text]:.2f}"
            for text in np.argsort(-cosines, kind="stable")[:NEAREST].tolist()
        ]
        if whole.to_text[place] > NEAREST:
            own = whole.texts[int(partners[place][cosines[partners[place]].argmax()])]
            said.append(f"(right: {_short(own)}, at {whole.to_text[place]})")
        shots.append(
            Shot(ids[place], "", "", right=bool(whole.to_text[place] == 1), caption=" · ".join(said))
        )
    yield Gallery(
        "Captions of images",
        "The nearest of all captions with their cosines; ✓ is right.",
        tuple(shots),
        False,
    )
    owners = whole.pairs.turned().partners()
    for text in _mixed(whole.to_image, QUERIES):
        yield _found(whole, ids, text, set(owners[text].tolist()))


def _found(whole: Whole, ids: list[str], text: int, right: set[int]) -> Gallery:
    """Return the nearest images of a caption."""
    cosines = whole.images @ whole.vectors[text]
    shots = tuple(
        Shot(
            ids[place], "", "", right=place in right, caption=f"{_mark(place in right)} {cosines[place]:.2f}"
        )
        for place in np.argsort(-cosines, kind="stable")[:FOUND].tolist()
    )
    hint = f"The nearest images; ✓ is right. The nearest right one is number {whole.to_image[text]} of {len(ids)}."
    return Gallery(f"Images for “{_short(whole.texts[text])}”", hint, shots, False)


def _short(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _mark(right: bool) -> str:
    return "✓" if right else "✗"


def _mixed(rank: NDArray[Any], most: int) -> list[int]:
    """Return places: half of what was found first, half of what was not, each spread over the set."""
    found, missed = np.flatnonzero(rank == 1), np.flatnonzero(rank > 1)
    few = max(most // 2, most - len(found))
    chosen = [*_spread(missed, few), *_spread(found, most - min(few, len(missed)))]
    return sorted(chosen)


def _spread(places: NDArray[Any], most: int) -> list[int]:
    taken = min(most, len(places))
    return [int(places[(2 * i + 1) * len(places) // (2 * taken)]) for i in range(taken)]
