"""Linear probe of a task: a regression on frozen features. Drafts use it, and fine-tunes start from it.

A task with a `probe` supports drafts. `truth` is the target of its regression, with images as first axis.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vitrail.data.batch import Geometry
from vitrail.data.manifest import Row
from vitrail.layers.heads import Output
from vitrail.tasks.abstention import Abstention
from vitrail.tasks.result import Result, Scope

Vectors = NDArray[np.float32]
Whole = NDArray[np.int64]

OTHER_HEADS = (
    "answers of heads that were not trained on these images (for the error reported here: on the other folds)"
)
"""The data that the temperature of a draft is fitted on."""

NOISE = 0.02
"""Share of wrong labels that is assumed when label errors are searched."""

ALONE = "no other image of this class: nothing else tells what it looks like"
"""The note of a label that only one image (or its duplicates) has: heads without it never saw the label."""


class Linear(NamedTuple):
    """A linear layer, logits = x weightᵀ + bias, and the inverse strength of its regularisation."""

    weight: Vectors  # (k, d)
    bias: Vectors  # (k,)
    strength: float

    def logits(self, vectors: Vectors) -> Vectors:
        """Return the logits: (n, …, d) -> (n, …, k)."""
        logits: Vectors = vectors.astype(np.float32, copy=False) @ self.weight.T + self.bias
        return logits

    def put_into(self, linear: nn.Linear) -> None:
        """Copy weight and bias into the last layer of a network."""
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(self.weight))
            linear.bias.copy_(torch.from_numpy(self.bias))


class Doubt(NamedTuple):
    """A probable label error: the label as text and as table cell, the predicted label and its probability."""

    row: Row
    label: str
    cell: str
    looks_like: str
    probability: float


class Probe(Protocol):
    """Converts the targets of a task to arrays, fits regressions on them and scores the predictions."""

    def truths(self, targets: Sequence[Any]) -> Whole:
        """Return the targets as numbers: (n, …)."""
        ...

    def layer(self, head: nn.Module) -> nn.Linear | None:
        """Return the layer of a head that receives the fitted weights; None if the head has no such layer."""
        ...

    def regressions(self, scaled: Vectors, truth: Whole, strengths: Sequence[float]) -> Iterator[Linear]:
        """Yield a layer fitted at each strength, each started from the previous; `scaled` has standard deviation 1."""
        ...

    def strata(self, truth: Whole) -> Whole:
        """Return the stratum of each image, by which folds are balanced: (n,)."""
        ...

    def worth(self, logits: Vectors, truth: Whole) -> float:
        """Return the score by which a regularisation strength is chosen; higher is better."""
        ...

    def share(self, logits: Vectors, truth: Whole) -> float:
        """Return the score from 0 to 1 that is extrapolated to more images."""
        ...

    def result(self, evaluation: Any, scope: Scope) -> Result:
        """Return the result of cross-validation: each fold is predicted by a head fitted on the other folds."""
        ...

    def reopen(self, report: Mapping[str, Any]) -> Result:
        """Return the result that the report.json of a draft contains."""
        ...

    def doubts(self, evaluation: Any) -> list[Doubt] | None:
        """Return the targets that are more probably wrong than right, the most probable first; None: not supported."""
        ...


@runtime_checkable
class DenseProbe(Probe, Protocol):
    """A probe on the patches of an image, (n, p, d), instead of one vector per image, (n, d).

    The truth is one number per patch, (n, p), and `VOID` for a patch that does not count.
    """

    def cells(self, targets: Sequence[Any], at: Sequence[Geometry], grid: tuple[int, int]) -> Whole:
        """Return the class of each patch of a grid, row by row: (n, p)."""
        ...

    def sample(self, vectors: Vectors, truth: Whole) -> tuple[Vectors, Whole]:
        """Return the patches to fit on and their classes: (n, p, d), (n, p) -> (m, d), (m,)."""
        ...

    def output(self, logits: Vectors, grid: tuple[int, int]) -> Output:
        """Return the task's output from logits of patches (n, p, k)."""
        ...

    def calibrate(self, logits: Vectors, truth: Whole) -> Mapping[str, Any]:
        """Return the task settings that are fitted on the predictions of patches."""
        ...


class LabelScore(NamedTuple):
    """How well the target of an image fits the predictions of heads that were not trained on it.

    `label` and `proposal` are cells of a table: the target, and the one that fits better. `confidence` is the
    probability of the target (of several labels: of the least fitting one), `margin` that minus the probability of the
    proposal. `doubted`: the target is more probably wrong than right. `note` says what limits this, or is "".
    """

    row: Row
    label: str
    proposal: str
    confidence: float
    margin: float
    doubted: bool
    note: str = ""


@runtime_checkable
class ScoresLabels(Protocol):
    """A probe that can tell of the target of each image how well it fits: what label errors are found with."""

    def label_scores(self, evaluation: Any) -> list[LabelScore]:
        """Return one score per image of an evaluation of out-of-fold predictions, in the order of its rows."""
        ...


@runtime_checkable
class PerImageProbe(Protocol):
    """A probe that tells of each image how wrong its answer is: what learning curves are drawn from."""

    def wrong(self, logits: Vectors, truth: Whole) -> NDArray[np.float64]:
        """Return how wrong the answers of images are, 0 … 1 each: (n,)."""
        ...


@runtime_checkable
class AbstainingProbe(Protocol):
    """A probe whose reports tell of "none of these" and of label sets."""

    def with_abstention(self, result: Result, abstention: Abstention) -> Result:
        """Return a result of cross-validation with what was fitted after it."""
        ...


def regression() -> Any:
    """Return scikit-learn's logistic regression with the options that drafts use."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=200, tol=1e-3, warm_start=True)


def fit_regression(model: Any, strength: float, scaled: Vectors, truth: Whole) -> None:
    """Fit one regression at a strength; one that ends at its last iteration is used as it is.

    To end early regularises a little more, and the scores of the other folds include what it costs.
    """
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.set_params(C=strength).fit(scaled, truth)
