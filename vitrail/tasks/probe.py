"""What a task says of a linear probe: a regression on frozen features that drafts and fine-tunes start from.

A task with a `probe` can be drafted. `truth` is what its regression learns from, the first axis the images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vitrail.data.batch import Geometry
from vitrail.data.manifest import Row
from vitrail.layers.heads import Output
from vitrail.tasks.result import Result, Scope

Vectors = NDArray[np.float32]
Whole = NDArray[np.int64]

OTHER_HEADS = (
    "answers of heads that had not seen the images (for the error told here, on those of the other folds)"
)
"""What the temperature of a draft is fitted on."""

NOISE = 0.02
"""Share of wrong labels that is taken for granted when labels are doubted."""


class Linear(NamedTuple):
    """A linear layer on vectors, and the inverse strength of its regularisation: logits = x weightᵀ + bias."""

    weight: Vectors  # (k, d)
    bias: Vectors  # (k,)
    strength: float

    def logits(self, vectors: Vectors) -> Vectors:
        """(n, …, d) -> (n, …, k)."""
        found: Vectors = vectors.astype(np.float32, copy=False) @ self.weight.T + self.bias
        return found

    def put_into(self, linear: nn.Linear) -> None:
        """Give a network's last layer these numbers."""
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(self.weight))
            linear.bias.copy_(torch.from_numpy(self.bias))


class Doubt(NamedTuple):
    """One doubtful truth: what stands there, in words and as tables write it, what it looks like, how sure that is."""

    row: Row
    label: str
    cell: str
    looks_like: str
    probability: float


class Probe(Protocol):
    """How a task's truths become arrays, which regression learns them, and what its answers are worth."""

    def truths(self, targets: Sequence[Any]) -> Whole:
        """Return the targets as numbers: (n, …)."""
        ...

    def layer(self, head: nn.Module) -> nn.Linear | None:
        """Return the layer of a head that takes the fitted weights; None where it has no such one."""
        ...

    def regressions(self, scaled: Vectors, truth: Whole, strengths: Sequence[float]) -> Iterator[Linear]:
        """Yield a layer fitted on features of deviation 1 at each strength, each from where the one before ended."""
        ...

    def strata(self, truth: Whole) -> Whole:
        """Return what folds shall hold alike of: (n,)."""
        ...

    def worth(self, logits: Vectors, truth: Whole) -> float:
        """Return how good answers are, by which a strength is chosen; higher is better."""
        ...

    def share(self, logits: Vectors, truth: Whole) -> float:
        """Return the one number in 0 … 1 that more images should raise."""
        ...

    def result(self, evaluation: Any, scope: Scope) -> Result:
        """Return the result of answers by folds, each answered by a task that the other folds taught."""
        ...

    def reopen(self, report: Mapping[str, Any]) -> Result:
        """Return the result that a draft's report.json holds."""
        ...

    def doubts(self, evaluation: Any) -> list[Doubt] | None:
        """Return the truths that are more probably wrong than right, the most doubtful first; None looks for none."""
        ...


@runtime_checkable
class DenseProbe(Probe, Protocol):
    """A probe that learns from the patches of an image, (n, p, d), in place of one vector of each, (n, d).

    The truth is one number a patch, (n, p), and `VOID` where a patch counts nowhere.
    """

    def cells(self, targets: Sequence[Any], at: Sequence[Geometry], grid: tuple[int, int]) -> Whole:
        """Return what the patches of a grid show, row by row: (n, p)."""
        ...

    def sample(self, vectors: Vectors, truth: Whole) -> tuple[Vectors, Whole]:
        """Return the patches that are learned from, and what they show: (n, p, d), (n, p) -> (m, d), (m,)."""
        ...

    def output(self, logits: Vectors, grid: tuple[int, int]) -> Output:
        """Return the task's output of logits of patches (n, p, k)."""
        ...

    def calibrate(self, logits: Vectors, truth: Whole) -> Mapping[str, Any]:
        """Return the settings of the task that answers to patches teach."""
        ...


@runtime_checkable
class PerImageProbe(Protocol):
    """A probe that tells of each image how wrong its answer is: what learning curves are drawn from."""

    def wrong(self, logits: Vectors, truth: Whole) -> NDArray[np.float64]:
        """Return how wrong the answers of images are, 0 … 1 each: (n,)."""
        ...


def regression() -> Any:
    """Return scikit-learn's logistic regression as drafts use it."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=200, tol=1e-3, warm_start=True)
