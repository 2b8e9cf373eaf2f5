"""How far numbers are off, after an epoch and in a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.batch import Geometry
from vitrail.data.manifest import Row
from vitrail.tasks.result import Gathered, Number, Result, Scope

Array = NDArray[Any]


class ErrorEvaluation:
    """The mean absolute error: the lower, the better."""

    main, unit, better = "error", "", "lower"

    def __init__(self) -> None:
        self.kept = Gathered()

    def update(
        self,
        rows: Sequence[Row],
        output: Mapping[str, Tensor],
        truths: Sequence[float],
        at: Sequence[Geometry],
    ) -> None:
        """Take in a batch."""
        off = output["value"].double().numpy() - np.array(truths, dtype=np.float64)
        self.kept.add(rows, {"error": np.abs(off)})

    def merge(self, other: ErrorEvaluation) -> None:
        """Take in what another process gathered."""
        self.kept.merge(other.kept)

    def scores(self) -> dict[str, float]:
        """Return the score by which the best weights are kept, and how many images there were."""
        return {"error": float(self.kept["error"].mean()), "pictures": len(self.kept)}

    def calibrate(self) -> Mapping[str, Any]:
        """Nothing is learned from validation answers."""
        return {}

    def per_image(self) -> Mapping[str, Array]:
        """Return the error of each image."""
        return {"error": self.kept["error"]}

    def resample(self, counts: Array) -> Mapping[str, float]:
        """Return the score of a resample."""
        return {"error": float(np.average(self.kept["error"], weights=counts))}

    def result(self, scope: Scope = Scope()) -> Result:
        """Return what reports say."""
        error = Number(self.scores()["error"], unit="", better="lower", name="error", fact="mean error")
        verdict = f"off by {error.text()} on {len(self.kept)} {scope.called}."
        return Result(self.main, {"error": error}, verdict, details={"test": {"error": error.to_dict()}})
