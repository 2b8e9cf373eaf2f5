"""Base class of wrappers, which change only the training of another task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail.core.catalog import load
from vitrail.core.config import read
from vitrail.data.batch import Batch, Geometry
from vitrail.data.manifest import Row
from vitrail.data.preprocess import Preprocess
from vitrail.data.truth import Truth
from vitrail.layers.heads import Head, Output
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.base import Ask, Losses, Task
from vitrail.tasks.probe import Probe
from vitrail.tasks.result import Evaluation

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.data.findings import Finding
    from vitrail.data.image_facts import Facts


class Wrapper(Task[Any, Any]):
    """A task that forwards everything to the wrapped task `inner`, given by its settings `task` and `settings`."""

    inner: Task[Any, Any]

    def __init__(self, truth: Truth | Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        self.settings = read(self.Settings, settings or {}, "task settings")
        self.inner = load("task", self.settings.task)(truth, self.settings.settings)
        self.truth, self.inputs = self.inner.truth, self.inner.inputs
        self.answers, self.couples = self.inner.answers, self.inner.couples
        self.head_rate = self.inner.head_rate
        self.exports, self.columns = self.inner.exports, self.inner.columns

    def __getattr__(self, name: str) -> Any:
        """Return optional members of the wrapped task, such as its probabilities."""
        if name.startswith("__") or "inner" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def outputs(self) -> Mapping[str, tuple[str, ...]]:
        return self.inner.outputs

    def read(self, row: Row, root: Path) -> Any:
        return self.inner.read(row, root)

    @property
    def lies_in_image(self) -> bool:
        return self.inner.lies_in_image

    def transform(self, target: Any, view: Any) -> Any:
        return self.inner.transform(target, view)

    def collate(self, targets: Sequence[Any]) -> Any:
        return self.inner.collate(targets)

    def check(self, row: Row, facts: Facts, root: Path) -> Iterator[Finding]:
        return self.inner.check(row, facts, root)

    def check_set(self, rows: Sequence[Row]) -> Iterator[Finding]:
        return self.inner.check_set(rows)

    def strata(self, row: Row) -> tuple[str, ...]:
        return self.inner.strata(row)

    def same(self, one: Row, other: Row, root: Path) -> bool:
        return self.inner.same(one, other, root)

    def alike(self, one: Row, other: Row, root: Path) -> bool:
        return self.inner.alike(one, other, root)

    def follow_header(self, truth: Truth, rows: Sequence[Row]) -> None:
        self.inner.follow_header(truth, rows)

    def words(self, row: Row) -> str:
        return self.inner.words(row)

    def describe(self) -> str:
        return self.inner.describe()

    def usable(self, rows: Sequence[Row], findings: Sequence[Finding]) -> None:
        self.inner.usable(rows, findings)

    def view(self, target: Any, draw: Callable[[int], Any], key: int) -> Any:
        return self.inner.view(target, draw, key)

    def learn(self, rows: Sequence[Row], root: Path) -> Mapping[str, Any]:
        return self.inner.learn(rows, root)

    def unfit(self, rows: Sequence[Row]) -> Sequence[str]:
        return self.inner.unfit(rows)

    def class_weights(self, rows: Sequence[Row], root: Path) -> NDArray[np.float32]:
        return self.inner.class_weights(rows, root)

    def head(self, spec: FeatureSpec) -> Head:
        return self.inner.head(spec)

    def steps(self, preprocess: Preprocess) -> Preprocess:
        return self.inner.steps(preprocess)

    def prepare(self, batch: Batch[Any], rng: np.random.Generator, progress: float) -> Batch[Any]:
        return self.inner.prepare(batch, rng, progress)

    def loss(self, output: Output, targets: Any) -> Losses:
        return self.inner.loss(output, targets)

    def weights(self, targets: Any) -> Mapping[str, float]:
        return self.inner.weights(targets)

    def answer(self, network: nn.Module, batch: Batch[Any], ask: Ask) -> Output:
        return self.inner.answer(network, batch, ask)

    def decode(self, output: Output, at: Sequence[Geometry], ask: Ask) -> list[Any]:
        return self.inner.decode(output, at, ask)

    def choices(self, prediction: Any) -> Sequence[str]:
        return self.inner.choices(prediction)

    def focus(self, prediction: Any, choice: str) -> Any:
        return self.inner.focus(prediction, choice)

    def score(self, output: Output, prediction: Any) -> Tensor:
        return self.inner.score(output, prediction)

    def render(self, image: Image, prediction: Any) -> Image:
        return self.inner.render(image, prediction)

    def fingerprint(self, output: Output) -> Tensor:
        return self.inner.fingerprint(output)

    def agree(self, one: Output, other: Output, tolerance: float = 0.0) -> Tensor:
        return self.inner.agree(one, other, tolerance)

    def evaluation(self) -> Evaluation:
        return self.inner.evaluation()

    def accepts(self, row: Row) -> None:
        self.inner.accepts(row)

    @property
    def probe(self) -> Probe | None:
        return self.inner.probe
