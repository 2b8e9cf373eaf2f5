"""Compares models that are trained already, on the same test images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitrail.core.errors import DataError, UsageError
from vitrail.core.text import command
from vitrail.data.labels import count, shorten
from vitrail.data.manifest import TEST, Manifest, Row, group_key
from vitrail.data.options import DEFAULTS, LayoutOptions
from vitrail.evaluate.collect_answers import evaluate
from vitrail.evaluate.new_data import open_new_data, own_tests, training_rows
from vitrail.infer.predictor import Predictor, refuse_exported
from vitrail.metrics.mcnemar import paired
from vitrail.models.factory import count_macs, count_params
from vitrail.runs.run import open_run
from vitrail.studies.compare.outcome import SharedImages, Side, matched, score_of


class Given(NamedTuple):
    """What trained models reached on the same images, and what is to be said of these images."""

    tested: SharedImages
    sides: tuple[Side, ...]
    score: str
    notes: tuple[str, ...]
    manifest: Manifest


class _Images(NamedTuple):
    root: Path
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def compare_given(
    models: Sequence[str], source: str = "", *, read: LayoutOptions = DEFAULTS, device: str = "auto"
) -> Given:
    """Score models on the images of `source`, or on the test images that all their runs have.

    Raises:
        UsageError: fewer than two, or one of them twice.
        DataError: their test images are not the same; the missing ones are named.
    """
    if len(set(models)) < 2 or len(set(models)) < len(models):
        raise UsageError("A comparison takes two models or more, each once: --runs runs/a runs/b")
    for model in models:
        refuse_exported(Path(model))
    predictors = {model: Predictor(model, device).answering() for model in models}
    tasks = {model: one.header.task["name"] for model, one in predictors.items()}
    if len(set(tasks.values())) > 1:
        each = ", ".join(f"{model}: {task}" for model, task in tasks.items())
        raise UsageError(f"Models of different tasks cannot be compared ({each}).")
    names = {model: Path(model).name for model in models}
    if len(set(names.values())) < len(models):
        names = {model: model for model in models}
    images = _of_source(source, predictors, read) if source else _own(list(models))
    kept, notes = _unseen(images, models)
    answers = {model: score_of(evaluate(one, kept, images.root)) for model, one in predictors.items()}
    score = next(iter(answers.values())).name
    ids = tuple(row.id for row in kept)
    sides = tuple(
        Side(names[model], answers[model].values[None], _facts(one)) for model, one in predictors.items()
    )
    task = next(iter(predictors.values())).task
    tested = SharedImages(
        ids,
        tuple(task.strata(row) for row in kept),
        tuple(group_key(row) for row in kept),
        np.full(len(ids), -1),
        0,
    )
    manifest = Manifest.of([row._replace(split=TEST) for row in kept], images.root)
    return Given(tested, sides, score, (*images.notes, *notes, *_mcnemar(sides, ids, score)), manifest)


def _of_source(source: str, predictors: dict[str, Predictor], read: LayoutOptions) -> _Images:
    """Return the images of a source whose truths every model can be scored by."""
    opened = [open_new_data(source, one.task, None, read=read) for one in predictors.values()]
    return _Images(opened[0].manifest.root, tuple(opened[0].rows), tuple(opened[0].notes))


def _own(models: Sequence[str]) -> _Images:
    """Return the test images of the first run, which all the others have too; they are matched by their ids."""
    found = {model: own_tests(open_run(model)) for model in models}
    rows = {model: own.scored.rows("test") for model, own in found.items()}
    first = models[0]
    for model in models[1:]:
        matched([row.id for row in rows[first]], dict.fromkeys((row.id for row in rows[model]), 1.0), model)
        matched([row.id for row in rows[model]], dict.fromkeys((row.id for row in rows[first]), 1.0), first)
        here, there = ({row.id: row.hash for row in rows[one]} for one in (first, model))
        if other := [id for id in here if here[id] != there[id]]:
            raise DataError(
                f"{first} and {model} mean different images by {shorten(other)}. Name the images to compare on: "
                f"{command('compare', 'IMAGES', '--runs', *models)}"
            )
    notes = tuple(dict.fromkeys(note for own in found.values() for note in own.notes))
    return _Images(found[first].scored.root, tuple(rows[first]), notes)


def _unseen(images: _Images, models: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Return the images that no model learned from, and say how many others there were."""
    learned: set[str] = set()
    notes = []
    for model in models:
        rows = training_rows(model)
        if rows is None:
            notes.append(
                f"{model} does not tell which images it learned from; some of these may be among them."
            )
        learned |= {row.hash for row in rows or ()}
    kept = [row for row in images.rows if row.hash not in learned]
    if not kept:
        raise DataError("Every one of these images was learned from by one of the models. Name new ones.")
    if len(kept) < len(images.rows):
        left = count(len(images.rows) - len(kept), "image")
        notes.append(f"{left} that a model learned from left out.")
    return kept, notes


def _facts(predictor: Predictor) -> dict[str, Any]:
    size = predictor.preprocess.size
    return {
        "parameters": count_params(predictor.network),
        "macs": count_macs(predictor.network.encoder, size),
        "origin": predictor.header.weights,
        "imgsz": list(size),
    }


def _mcnemar(sides: Sequence[Side], ids: Sequence[str], score: str) -> list[str]:
    """Return McNemar's exact test of two models that answer correctly or not."""
    if len(sides) != 2 or score != "accuracy":
        return []
    first, second = (
        dict(zip(ids, (side.scores[0] > 0.5).tolist(), strict=True))
        for side in sides
        if side.scores is not None
    )
    found = paired(first, second)
    return [f"McNemar's exact test: {found.verdict(sides[0].name, sides[1].name)}"]
