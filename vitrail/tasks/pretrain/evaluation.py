"""Evaluation of masked pretraining: how much of the variance of hidden patches the guesses explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from vitrail.data.batch import Geometry
from vitrail.data.manifest import Row
from vitrail.tasks.pretrain.loss import ERROR, SPREAD
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

SHOWN = 8
"""Images on a page, from the best explained to the worst."""

TINY = 1e-12

HOW = (
    "Left what the network saw, in the middle what it guessed, right the image. The network learns the pattern in a "
    "patch, and not its colour: each guessed patch is drawn with the mean and the spread of the true one."
)
HOW_PLAIN = "Left what the network saw, in the middle what it guessed, right the image."


class PretrainEvaluation:
    """Squared errors on the hidden patches, under masks that follow from the ids of the images.

    `explained` is one minus the squared error relative to the variance: 0 for a guess that knows only the mean of each
    patch, 1 for a perfect one.
    """

    main, unit = "explained", "%"

    def __init__(self, mask: float, normalise: bool) -> None:
        self.mask, self.normalise = mask, normalise
        self.kept = Gathered()

    def update(
        self,
        rows: Sequence[Row],
        output: Mapping[str, Tensor],
        truths: Sequence[None],
        at: Sequence[Geometry],
    ) -> None:
        """Add the mean squared errors and variances of images (b,), which `Pretrain.answer` measured."""
        arrays = {name: output[name].double().numpy() for name in (ERROR, SPREAD)}
        self.kept.add(rows, arrays)

    def merge(self, other: PretrainEvaluation) -> None:
        """Add the images of another evaluation and sort all by id."""
        self.kept.merge(other.kept)

    def scores(self) -> dict[str, float]:
        """Return the explained share, the loss and the number of images."""
        if not len(self.kept):
            return {"explained": 0.0, "loss": float("nan"), "pictures": 0}
        explained = self.resample(np.ones(len(self.kept)))["explained"]
        return {"explained": explained, "loss": float(self.kept[ERROR].mean()), "pictures": len(self.kept)}

    def calibrate(self) -> Mapping[str, Any]:
        """Return nothing: there are no probabilities."""
        return {}

    def per_image(self) -> Mapping[str, Array]:
        """Return the explained share and the loss of each image."""
        errors = self.kept[ERROR]
        return {"explained": 1 - errors / np.maximum(self.kept[SPREAD], TINY), "loss": errors}

    def resample(self, counts: Array) -> Mapping[str, float]:
        """Return the scores of a bootstrap sample."""
        error, spread = (float(counts @ self.kept[name]) for name in (ERROR, SPREAD))
        return {"explained": 1 - error / max(spread, TINY), "loss": error / float(counts.sum())}

    def result(self, scope: Scope = Scope()) -> Result:
        """Return the numbers, the images from the best to the worst, and what they do not say."""
        found = self.scores()
        numbers = {
            "explained": Number(found["explained"], name="explained", fact="of the hidden patches explained"),
            "loss": Number(found["loss"], unit="", better="lower", name="squared error"),
        }
        images = scope.counted(len(self.kept))
        verdict = _verdict(numbers["explained"], images)
        return Result("explained", numbers, verdict, sections=(*self._sections(images), _limits(self.mask)))

    def _sections(self, images: str) -> tuple[Section, ...]:
        """Return the images, and the table of how well they are explained."""
        shares = self.per_image()["explained"]
        if not len(shares):
            return ()
        order = np.argsort(-shares, kind="stable")
        places = np.unique(np.linspace(0, len(order) - 1, min(SHOWN, len(order))).round().astype(int))
        shots = tuple(self._shot(int(order[place]), shares) for place in places)
        pictures = Overlays("Hidden patches", HOW if self.normalise else HOW_PLAIN, shots)
        rows = (
            ("best", Number(float(shares.max()))),
            ("median", Number(float(np.median(shares)))),
            ("worst", Number(float(shares.min()))),
        )
        columns = (Column("image"), Column("explained", right=True))
        note = f"Under one fixed mask an image ({100 * self.mask:.0f} % hidden), on {images}."
        return pictures, TableSection("How well images are explained", Table(columns, rows), note)

    def _shot(self, place: int, shares: Array) -> Shot:
        return Shot(self.kept.rows[place].id, "", "", caption=f"{100 * shares[place]:.0f} % explained")


def _verdict(explained: Number, images: str) -> str:
    """Return what is explained, or that the guesses are no better than the mean of each patch."""
    least = explained.value if explained.low is None else explained.low
    if least is None or least <= 0:
        return (
            f"Explains {explained.text()} of hidden patches, on {images}: no better than the mean of each patch. "
            "Train longer before its weights are used."
        )
    return f"Explains {explained.text()} of hidden patches, on {images}."


def _limits(mask: float) -> Limits:
    return Limits(
        "Limits",
        (
            "The network predicts nothing about an image. It is a start for training with labels: `vitrail train "
            "photos/ --weights RUN --tune full`.",
            f"A better guess of the {100 * mask:.0f} % hidden is no proof of better features: only a fine-tune shows "
            "that.",
        ),
    )
