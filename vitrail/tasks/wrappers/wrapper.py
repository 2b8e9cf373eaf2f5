"""What every wrapper is: another task, of which only the training differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail.core.catalog import load
from vitrail.core.config import read
from vitrail.data.manifest import Row
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch, Geometry
from vitrail.data.truth import Truth
from vitrail.layers.head import Head, Output
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.base import Ask, Losses, Task
from vitrail.tasks.probe import Probe
from vitrail.tasks.result import Evaluation

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.data.findings import Finding
    from vitrail.data.look import Facts


class Wrapper(Task[Any, Any]):
    """A task that forwards everything to the one it wraps, `inner`, named by its settings `task` and `settings`."""

    inner: Task[Any, Any]

    def __init__(self, truth: Truth | Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        self.settings = read(self.Settings, settings or {}, "task settings")
        self.inner = load("task", self.settings.task)(truth, self.settings.settings)
        self.truth, self.inputs = self.inner.truth, self.inner.inputs
        self.answers, self.couples = self.inner.answers, self.inner.couples
        self.head_rate = self.inner.head_rate
        self.exports, self.columns = self.inner.exports, self.inner.columns

    def __getattr__(self, name: str) -> Any:
        """Return what the wrapped task has besides: its probe, its probabilities."""
        if name.startswith("__") or "inner" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def outputs(self) -> Mapping[str, tuple[str, ...]]:
        """The names and axes of the wrapped task's outputs."""
        return self.inner.outputs

    def read(self, row: Row, root: Path) -> Any:
        """Return the wrapped task's truth of a row."""
        return self.inner.read(row, root)

    @property
    def lies_in_image(self) -> bool:
        """Whether the wrapped task's truths move with their pictures."""
        return self.inner.lies_in_image

    def transform(self, target: Any, view: Any) -> Any:
        """Return the wrapped task's truth as it lies in a view."""
        return self.inner.transform(target, view)

    def collate(self, targets: Sequence[Any]) -> Any:
        """Return the wrapped task's truths of a batch."""
        return self.inner.collate(targets)

    def check(self, row: Row, facts: Facts, root: Path) -> Iterator[Finding]:
        """Say what the wrapped task finds wrong with a truth."""
        return self.inner.check(row, facts, root)

    def check_set(self, rows: Sequence[Row]) -> Iterator[Finding]:
        """Say what the wrapped task finds wrong with a set."""
        return self.inner.check_set(rows)

    def strata(self, row: Row) -> tuple[str, ...]:
        """Return what the wrapped task tells apart."""
        return self.inner.strata(row)

    def same(self, one: Row, other: Row, root: Path) -> bool:
        """Tell whether two rows say the same to the wrapped task."""
        return self.inner.same(one, other, root)

    def alike(self, one: Row, other: Row, root: Path) -> bool:
        """Tell whether two rows say nearly the same to the wrapped task."""
        return self.inner.alike(one, other, root)

    def follow_header(self, truth: Truth, rows: Sequence[Row]) -> None:
        """Let the wrapped task read the truths of another source."""
        self.inner.follow_header(truth, rows)

    def words(self, row: Row) -> str:
        """Return the wrapped task's words for a truth."""
        return self.inner.words(row)

    def describe(self) -> str:
        """Return what the wrapped task says of its truths."""
        return self.inner.describe()

    def usable(self, rows: Sequence[Row], findings: Sequence[Finding]) -> None:
        """Refuse what the wrapped task refuses."""
        self.inner.usable(rows, findings)

    def view(self, target: Any, draw: Callable[[int], Any], key: int) -> Any:
        """Return the wrapped task's choice among views."""
        return self.inner.view(target, draw, key)

    def learn(self, rows: Sequence[Row], root: Path) -> Mapping[str, Any]:
        """Return what the truths tell the wrapped task."""
        return self.inner.learn(rows, root)

    def class_weights(self, rows: Sequence[Row], root: Path) -> NDArray[np.float32]:
        """Return the wrapped task's weights of classes."""
        return self.inner.class_weights(rows, root)

    def head(self, spec: FeatureSpec) -> Head:
        """Return the wrapped task's head."""
        return self.inner.head(spec)

    def steps(self, preprocess: Preprocess) -> Preprocess:
        """Return how the wrapped task wants pictures prepared."""
        return self.inner.steps(preprocess)

    def prepare(self, batch: Batch[Any], rng: np.random.Generator, progress: float) -> Batch[Any]:
        """Prepare as the wrapped task does."""
        return self.inner.prepare(batch, rng, progress)

    def loss(self, output: Output, targets: Any) -> Losses:
        """Return the wrapped task's loss."""
        return self.inner.loss(output, targets)

    def weights(self, targets: Any) -> Mapping[str, float]:
        """Return what the wrapped task counts."""
        return self.inner.weights(targets)

    def answer(self, network: nn.Module, batch: Batch[Any], ask: Ask) -> Output:
        """Answer as the wrapped task does."""
        return self.inner.answer(network, batch, ask)

    def decode(self, output: Output, at: Sequence[Geometry], ask: Ask) -> list[Any]:
        """Return the wrapped task's predictions."""
        return self.inner.decode(output, at, ask)

    def choices(self, prediction: Any) -> Sequence[str]:
        """Return what the wrapped task may be asked about."""
        return self.inner.choices(prediction)

    def focus(self, prediction: Any, choice: str) -> Any:
        """Return the wrapped task's prediction of one choice."""
        return self.inner.focus(prediction, choice)

    def score(self, output: Output, prediction: Any) -> Tensor:
        """Return the wrapped task's number to explain."""
        return self.inner.score(output, prediction)

    def render(self, image: Image, prediction: Any) -> Image:
        """Return the wrapped task's drawing."""
        return self.inner.render(image, prediction)

    def fingerprint(self, output: Output) -> Tensor:
        """Return the wrapped task's fingerprint."""
        return self.inner.fingerprint(output)

    def agree(self, one: Output, other: Output, tolerance: float = 0.0) -> Tensor:
        """Tell of which images the wrapped task gives the same answer."""
        return self.inner.agree(one, other, tolerance)

    def evaluation(self) -> Evaluation:
        """Return the wrapped task's evaluation."""
        return self.inner.evaluation()

    def accepts(self, row: Row) -> None:
        """Refuse what the wrapped task refuses to be scored by."""
        self.inner.accepts(row)

    @property
    def probe(self) -> Probe | None:
        """The wrapped task's probe."""
        return self.inner.probe
