"""Generated images join the training images only if a paired comparison on real ones says so, and none is a copy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.environment import runs_dir
from vitrail.core.errors import DataError, UnknownNameError
from vitrail.core.files import refuse_unwritable_folder, write_json, write_text
from vitrail.core.text import command
from vitrail.data.loader import load_for
from vitrail.data.manifest import TEST, TRAIN, Manifest, Row, group_key
from vitrail.data.open_image import content_hash
from vitrail.data.prepare import Prepared
from vitrail.infer.predictor import Predictor
from vitrail.runs.recipe import Recipe
from vitrail.runs.run import new_folder
from vitrail.runs.train_options import TrainOptions
from vitrail.studies.augment.arms import WITH, WITHOUT, Arms, held_out, repeated
from vitrail.studies.augment.memorisation import Memorisation, memorisation
from vitrail.studies.augment.outcome import Outcome, sentences
from vitrail.studies.augment.page import Shown, page_of
from vitrail.studies.augment.table import write_table
from vitrail.studies.compare.outcome import SharedImages
from vitrail.training.fit import prepared_for
from vitrail.training.resolve_recipe import plan
from vitrail.training.validate_options import validate

Say = Callable[[str], None]

AT_ONCE = 64
"""Images whose vectors are computed together."""


class Generator(NamedTuple):
    """What makes images of a class: its name, its classes, the rows it learned from, and what writes n images.

    `write(folder, n)` writes images of the class into a folder and returns their paths.
    """

    name: str
    labels: Sequence[str]
    learned: Sequence[Row]
    write: Callable[[Path, int], Sequence[Path]]


@dataclass(frozen=True)
class Asked:
    """What is to be decided: the data, the class, how many images (None: what the class lacks), how many seeds."""

    data: str
    name: str
    options: TrainOptions
    n: int | None = None
    seeds: int = 3


class Gated(NamedTuple):
    """The decision: its folder, whether the images are admitted, the sentences, and everything as plain data."""

    folder: Path
    admitted: bool
    lines: tuple[str, ...]
    report: dict[str, Any]


def gate(asked: Asked, generator: Generator, say: Say, out: str = "") -> Gated:
    """Generate images of a class, compare trainings with and without them, and write what was decided.

    Raises:
        UnknownNameError: there is no such class.
        DataError: the truths are no classes, or no real image of the class is left to test on.
        TrainingError: a training failed.
    """
    validate(asked.options)
    wanted = Path(out) if out else runs_dir() / f"augment-{Path(asked.data).resolve().name}-{asked.name}"
    refuse_unwritable_folder(wanted.parent)
    prepared = prepared_for(asked.data, asked.options)
    say(prepared.summary())
    _refuse_unfit(prepared, asked.name, generator)
    manifest, notes = held_out(prepared.manifest, generator.learned, asked.name)
    number = asked.n or lacking(manifest, asked.name)
    made_recipe = plan(asked.data, prepared, asked.options)
    folder = new_folder(wanted)
    say(f"generating {number:,} images of {asked.name}")
    rows = _rows(asked.name, generator.write(folder.resolve() / "made" / asked.name, number))
    arms = Arms(
        folder / "trainings", made_recipe.full or made_recipe.recipe, prepared, asked.options.seed or 0, say
    )
    found = _decided(asked, arms, manifest, rows)
    return _told(asked, generator, folder, found, notes)


class _Found(NamedTuple):
    manifest: Manifest
    rows: list[Row]  # of all generated images
    used: list[Row]
    real: list[Row]  # of the class, for training
    check: Memorisation
    outcome: Outcome | None
    recipe: Recipe


def lacking(manifest: Manifest, name: str) -> int:
    """Return how many training images a class lacks to have as many as the middle one of the others; at least 10."""
    counts = Counter(row.target for row in manifest.rows(TRAIN))
    others = [number for label, number in counts.items() if label != name]
    return max(10, int(np.median(others)) - counts[name]) if others else 10


def _refuse_unfit(prepared: Prepared, name: str, generator: Generator) -> None:
    truth = prepared.manifest.truth
    if truth.kind != "class" or prepared.layout.raster is not None:
        raise DataError(
            f"{prepared.source} does not give every image one class, and generated images have nothing else. Name "
            "images in class folders, or a table of them."
        )
    for known, whose in ((truth.names, prepared.source), (generator.labels, generator.name)):
        if name not in known:
            raise UnknownNameError("class", name, known, f"{whose} has: {', '.join(known)}.")
    if len(truth.names) < 2:
        raise DataError(
            f"{prepared.source} has one class alone: there is nothing to tell apart. Add a class."
        )


def _rows(name: str, paths: Sequence[Path]) -> list[Row]:
    """Return the rows of generated images."""
    rows = []
    for path in paths:
        id = f"made/{name}/{path.name}"
        rows.append(
            Row(id, path.as_posix(), target=name, split=TRAIN, hash=content_hash(path.read_bytes(), id))
        )
    return rows


def _decided(asked: Asked, arms: Arms, manifest: Manifest, rows: list[Row]) -> _Found:
    """Train without, look for copies, and train with those that are none and without them, seed by seed."""
    again = repeated(manifest, len(rows), arms.seed)
    every = manifest.rows(state=None)
    arms.write({WITHOUT: manifest.replace([*every, *again])})
    arms.train(WITHOUT, 1)
    real = [row for row in manifest.rows(TRAIN) if row.target == asked.name]
    check = _copies(Predictor(arms.model(WITHOUT), asked.options.device or "auto"), manifest.root, rows, real)
    arms.say(check.sentence())
    used = [row for row, copy in zip(rows, check.copies.tolist(), strict=True) if not copy]
    if not used:
        return _Found(manifest, rows, used, real, check, None, arms.recipe)
    arms.write({WITH: manifest.replace([*every, *used, *again[: len(rows) - len(used)]])})
    found: dict[str, Any] = arms.train(WITH, 1)
    for number in range(2, asked.seeds + 1):
        for arm in (WITHOUT, WITH) if number % 2 else (WITH, WITHOUT):
            arms.train(arm, number)
    tests = manifest.rows(TEST)
    ids = tuple(row.id for row in tests)
    classes = tuple((row.target,) for row in tests)
    tested = SharedImages(ids, classes, tuple(map(group_key, tests)), np.full(len(ids), -1), 0)
    with_made, without = (
        np.stack([arms.scores(arm, number, ids) for number in range(1, asked.seeds + 1)])
        for arm in (WITH, WITHOUT)
    )
    outcome = Outcome(asked.name, tested, with_made, without, found["score"])
    return _Found(manifest, rows, used, real, check, outcome, arms.recipe)


def _copies(predictor: Predictor, root: Path, made: Sequence[Row], real: Sequence[Row]) -> Memorisation:
    """Compare generated and real images by the features of a network that never saw a generated one."""
    vectors = [_vectors(predictor, root, rows) for rows in (made, real)]
    return memorisation(vectors[0], vectors[1], [group_key(row) for row in real])


def _vectors(predictor: Predictor, root: Path, rows: Sequence[Row]) -> NDArray[np.float64]:
    found = []
    for start in range(0, len(rows), AT_ONCE):
        images = [load_for(predictor.preprocess, root, row) for row in rows[start : start + AT_ONCE]]
        found.append(predictor.encode(images).double().numpy())
    return np.concatenate(found)


def _told(asked: Asked, generator: Generator, folder: Path, found: _Found, notes: Sequence[str]) -> Gated:
    """Write the report, the page, and for admitted images the table to train on."""
    admitted = found.outcome is not None and found.outcome.rises and found.check.passed
    lines = [*sentences(found.outcome, found.check, len(found.used)), *notes]
    report: dict[str, Any] = {
        "admitted": admitted,
        "class": asked.name,
        "data": asked.data,
        "generator": generator.name,
        "says": lines,
        "generated": {"images": len(found.rows), "used": len(found.used)},
        "real_training_images": len(found.real),
        "memorisation": found.check.to_dict(),
        "comparison": None if found.outcome is None else _plain(found.outcome),
        "network": found.recipe.model.name,
        "epochs": found.recipe.training.epochs,
        "table": None,
    }
    if admitted:
        table = write_table(folder, found.manifest, found.used)
        report |= {"table": table.as_posix(), "next": command("train", table)}
    write_json(folder / "augment.json", report)
    shown = Shown(found.manifest.root, found.rows, found.real, found.check)
    write_text(folder / "augment.html", page_of(report, found.outcome, shown))
    return Gated(folder, admitted, tuple(lines), report)


def _plain(outcome: Outcome) -> dict[str, Any]:
    parts = {"of_class": outcome.part(of_class=True), "of_others": outcome.part(of_class=False)}
    return {
        "score": outcome.score,
        **outcome.to_dict(),
        **{name: None if part is None else part.to_dict() for name, part in parts.items()},
    }
