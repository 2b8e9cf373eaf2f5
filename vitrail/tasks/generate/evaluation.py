"""Evaluation of generation: how well the noise in held-out images is told, at levels that follow from their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from vitrail.data.batch import Geometry
from vitrail.data.manifest import Row
from vitrail.tasks.generate.settings import STEPS
from vitrail.tasks.result import (
    Array,
    Column,
    Gathered,
    Limits,
    Number,
    Overlays,
    Result,
    Scope,
    Section,
    Shot,
    Table,
    TableSection,
)

ERROR, BOUND, LEVEL = "error", "bound", "level"
"""Outputs for each image (b,): the squared error of its noise, the bound on its likelihood in bits, its noise level."""

SHOWN = 8
"""Images on a page, from the least noise to the most."""

PARTS = 4
"""Spans of noise levels in the table."""

HOW = (
    "Left the image with the noise that the network saw, in the middle what it takes for the image in one step, right "
    "the image. Made images take many such steps, each with less noise."
)


class GenerateEvaluation:
    """The mean squared error of the noise: 0 is perfect, 1 is no better than no guess. Lower is better.

    Level and noise of an image follow from its id, so scores of epochs and of networks can be compared.
    """

    main, unit, better = "error", "", "lower"

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.kept = Gathered()

    def update(
        self,
        rows: Sequence[Row],
        output: Mapping[str, Tensor],
        truths: Sequence[int],
        at: Sequence[Geometry],
    ) -> None:
        """Add the errors, bounds and levels of images (b,), which `Generate.answer` measured."""
        self.kept.add(rows, {name: output[name].double().numpy() for name in (ERROR, BOUND, LEVEL)})

    def merge(self, other: GenerateEvaluation) -> None:
        """Add the images of another evaluation and sort all by id."""
        self.kept.merge(other.kept)

    def scores(self) -> dict[str, float]:
        """Return the error, the loss and the number of images."""
        if not len(self.kept):
            return {"error": float("nan"), "loss": float("nan"), "pictures": 0}
        found = self.resample(np.ones(len(self.kept)))
        return {**found, "pictures": len(self.kept)}

    def calibrate(self) -> Mapping[str, Any]:
        """Return nothing: there are no probabilities."""
        return {}

    def per_image(self) -> Mapping[str, Array]:
        """Return the error and the loss of each image."""
        return {"error": self.kept[ERROR], "loss": self.kept[ERROR] + self.kept[BOUND]}

    def resample(self, counts: Array) -> Mapping[str, float]:
        """Return the scores of a bootstrap sample."""
        return {name: float(counts @ values / counts.sum()) for name, values in self.per_image().items()}

    def result(self, scope: Scope = Scope()) -> Result:
        """Return the numbers, the images from the least noise to the most, and what they do not say."""
        found = self.scores()
        numbers = {
            "error": Number(
                found["error"], unit="", better="lower", name="noise error", fact="squared error of the noise"
            ),
            "loss": Number(found["loss"], unit="", better="lower", name="loss"),
        }
        images = scope.counted(len(self.kept))
        error = numbers["error"].text()
        verdict = f"Makes images of {_named(self.labels)}. Squared error of the noise {error}, on {images}."
        return Result("error", numbers, verdict, sections=(*self._sections(images), _limits()))

    def _sections(self, images: str) -> tuple[Section, ...]:
        """Return the images, and the table of the errors by how much noise there was."""
        if not len(self.kept):
            return ()
        levels, errors = self.kept[LEVEL], self.kept[ERROR]
        order = np.argsort(levels, kind="stable")
        places = np.unique(np.linspace(0, len(order) - 1, min(SHOWN, len(order))).round().astype(int))
        shots = tuple(self._shot(int(order[place])) for place in places)
        columns = (Column("noise level"), Column("images", right=True), Column("error", right=True))
        ends = [part * STEPS // PARTS for part in range(PARTS + 1)]
        rows = []
        for low, high in pairwise(ends):
            inside = (levels >= low) & (levels < high)
            error = float(errors[inside].mean()) if inside.any() else None
            rows.append((f"{low} to {high - 1}", int(inside.sum()), Number(error, unit="", better="lower")))
        note = f"Each image at one level, on {images}. Level 0 is almost the image, level {STEPS - 1} noise alone."
        return (
            Overlays("Noise taken away in one step", HOW, shots),
            TableSection("Errors by noise level", Table(columns, tuple(rows)), note),
        )

    def _shot(self, place: int) -> Shot:
        level, error = self.kept[LEVEL][place], self.kept[ERROR][place]
        return Shot(self.kept.rows[place].id, "", "", caption=f"level {level:.0f}, error {error:.3f}")


def _named(labels: Sequence[str], most: int = 12) -> str:
    """Return the classes, or their number if they are many."""
    return f"{len(labels)} classes" if len(labels) > most else ", ".join(labels)


def _limits() -> Limits:
    return Limits(
        "Limits",
        (
            "Made images show what the training images show, and their gaps: they are no evidence of anything. Say of "
            "every made image that it was made.",
            "A network that was trained for long on few images repeats them. Compare made images with their nearest "
            "training images before they are used or published.",
            "A low error of the noise is no proof of good images, nor that a training with them helps.",
        ),
    )
