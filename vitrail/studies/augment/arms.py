"""The two kinds of trainings: with the generated images, and without, both as long and on as many images.

Without, real training images are repeated in their place, so that the number of steps and their learning rates are the
same; images that are tested or that choose the best epoch are always real.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.core.config import to_yaml
from vitrail.core.errors import DataError, TrainingError
from vitrail.core.files import make_folder, write_text
from vitrail.core.text import clock
from vitrail.data.labels import count
from vitrail.data.manifest import TEST, TRAIN, Manifest, Row, group_key
from vitrail.data.prepare import Prepared
from vitrail.runs.recipe import Recipe
from vitrail.studies.compare.jobs import run_job
from vitrail.studies.compare.outcome import matched
from vitrail.studies.compare.worker import Job

WITH, WITHOUT = "with", "without"


def held_out(manifest: Manifest, learned: Sequence[Row], name: str) -> tuple[Manifest, list[str]]:
    """Return the manifest without test images that the generator learned from (or of their groups), and notes.

    Raises:
        DataError: no test image of the class is left.
    """
    hashes = {row.hash for row in learned} - {""}
    groups = {group_key(row) for row in manifest.rows() if row.hash in hashes}
    out = {row.id for row in manifest.rows(TEST) if group_key(row) in groups}
    kept = manifest.replace([row for row in manifest.rows(state=None) if row.id not in out])
    if not any(row.target == name for row in kept.rows(TEST)):
        why = (
            f"the generator learned from all that there are ({len(out):,} of all classes). Train it on this data with "
            "the same --seed"
            if out
            else "the split has none. State one (train/, val/, test/), or add images"
        )
        raise DataError(f"No real image of {name!r} is left to test on: {why}.")
    notes = [f"{count(len(out), 'test image')} left out: the generator learned from them."] if out else []
    return kept, notes


def repeated(manifest: Manifest, number: int, seed: int) -> list[Row]:
    """Return so many training rows again, evenly drawn from all, under ids of their own."""
    rows = manifest.rows(TRAIN)
    draw = np.random.default_rng(abs(seed))
    turns = -(-number // len(rows))
    order = np.concatenate([draw.permutation(len(rows)) for _ in range(turns)])[:number]
    return [
        rows[place]._replace(id=f"{rows[place].id} (again {turn + 1})")
        for turn, place in enumerate(order.tolist())
    ]


@dataclass(frozen=True)
class Arms:
    """Trainings of one recipe, written below a folder; `root` is that of the real images."""

    folder: Path
    recipe: Recipe
    prepared: Prepared
    seed: int
    say: Callable[[str], None]

    def write(self, manifests: dict[str, Manifest]) -> None:
        """Write the recipe, and the images of each kind of training."""
        make_folder(self.folder)
        write_text(
            self.folder / "recipe.yaml", to_yaml(self.recipe, "trainings with and without generated images")
        )
        for arm, manifest in manifests.items():
            manifest.write(self.folder / f"{arm}.csv")

    def train(self, arm: str, number: int) -> dict[str, Any]:
        """Train once, in a process of its own, and return what it found; TrainingError if it fails."""
        job = Job(
            "train",
            str(self.folder / f"{arm}-{number}"),
            str(self.folder / "recipe.yaml"),
            str(self.folder / f"{arm}.csv"),
            str(self.prepared.manifest.root),
            0.0,
            self.seed + number,
            looked=self.prepared.looked,
            keep=number == 1,
            epochs=self.recipe.training.epochs,
        )
        found = run_job(job)
        if "failed" in found:
            raise TrainingError(f"The training {arm} generated images failed: {found['failed']}")
        mean = 100 * self.scores(arm, number, None).mean()
        self.say(f"{arm} generated images, seed {number}: {mean:.1f} % in {clock(found['seconds'])}")
        return found

    def model(self, arm: str) -> Path:
        """Return the run of the first training of a kind, which is kept."""
        return self.folder / f"{arm}-1" / "run"

    def scores(self, arm: str, number: int, ids: Sequence[str] | None) -> NDArray[np.float64]:
        """Return the score of each test image of a training, in the order of the ids, or as they were answered."""
        with np.load(self.folder / f"{arm}-{number}" / "answers.npz", allow_pickle=False) as file:
            answers = dict(zip(file["ids"].tolist(), file["scores"].tolist(), strict=True))
        return matched(ids if ids is not None else list(answers), answers, arm)
