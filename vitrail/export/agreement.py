"""Check an export: compare it with the model on the model's own images, in many sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitrail.core.errors import RunError
from vitrail.data.labels import count
from vitrail.data.preprocess import shape_of
from vitrail.infer.predictor import Predictor
from vitrail.infer.proof_images import Pixels, Reader
from vitrail.layers.heads import Output
from vitrail.tasks.base import Task

LEAST = 200
"""Number of images for the check of an export."""

ALLOWED = 1e-3
"""Largest allowed difference of a probability (of a fingerprint) in float32."""

FEW_BITS = 0.05
"""The same if a runtime uses fewer bits by default, or a library has its own resize; as for the fast backends of
`vitrail predict`."""

SAME_TOP = 0.995
"""Smallest allowed share of top answers that are the same in that case."""

BATCH = 16
"""Images in memory at once; one of them may be large."""

LARGEST = (3000, 4000)
LARGEST_CLIP = (600, 800)
SMALLEST = (17, 23)

Asked = Callable[[Sequence[Pixels]], Output]
"""From images, each (height, width, channels), or clips, to the task's raw outputs, batch axis first."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Comparison of two sides: largest difference of a probability, and how often the top answer was the same.

    `shown` counts the images, `pictures` the comparisons: each image original or resized, or both if there are few.
    `ties` counts images with different top answers that the model itself rates equal within the allowed difference;
    `said` says what is compared.
    """

    allowed: float

    shown: int
    pictures: int
    sizes: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    drift: float
    same_top: int
    ties: int
    said: str = "top answers are the same"

    @property
    def near(self) -> bool:
        """Whether nearly all top answers are the same, and no probability differs by more than allowed."""
        return self.drift <= self.allowed and self.same_top + self.ties >= SAME_TOP * self.pictures

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {name: value for name, value in asdict(self).items() if name != "said"}

    def __str__(self) -> str:
        small, large = (f"{height} x {width}" for height, width in (self.smallest, self.largest))
        return (
            f"{self.same_top} of {self.pictures} {self.said} ({self.ties} ties), largest difference of a probability "
            f"{self.drift:.1e}; {count(self.shown, 'image')} in {self.sizes} sizes from {small} to {large}"
        )


def many_sizes(readers: Sequence[Reader], least: int = LEAST) -> Iterator[Pixels]:
    """Yield at least `least` images: half unchanged, half in random sizes, including the smallest and largest.

    A run whose images all have one size would say nothing about other sizes.
    """
    draw = np.random.default_rng(0)
    many = max(least, len(readers))
    for i in range(many):
        picture = readers[i // 2 % len(readers) if many > len(readers) else i]()
        if i % 2 == 0:
            yield picture
            continue
        size = {1: SMALLEST, 3: LARGEST if picture.ndim == 3 else LARGEST_CLIP}.get(i)
        height, width = size or (int(side) for side in np.exp(draw.uniform(np.log(24), np.log(700), 2)))
        yield _resized(picture, height, width)


def _resized(picture: Pixels, height: int, width: int) -> Pixels:
    if picture.ndim == 4:  # a clip
        return np.stack([_resized(frame, height, width) for frame in picture])
    if picture.dtype != np.uint8 or picture.shape[2] not in {1, 3, 4}:
        rows, cols = (
            np.arange(new) * old // new for new, old in zip((height, width), picture.shape, strict=False)
        )
        return np.ascontiguousarray(picture[rows[:, None], cols])
    flat = picture[..., 0] if picture.shape[2] == 1 else picture
    resized = np.asarray(Image.fromarray(flat).resize((width, height), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(resized.reshape(height, width, picture.shape[2]))


def model_side(predictor: Predictor) -> Asked:
    """Return the trained model's own outputs, in float32, through its own preprocessing."""
    return lambda images: predictor.outputs([predictor.ready(image) for image in images])


def shown(readers: Sequence[Reader]) -> int:
    """Return how many different images `many_sizes` yields: if there are few, each appears original and resized."""
    return len(readers) if len(readers) >= LEAST else min(len(readers), LEAST // 2)


@dataclass(frozen=True, slots=True)
class Proven:
    """Result of the check of an export: agreement in its own format, in other runtimes by name, and notes.

    `prepares` is False for a folder whose library cannot prepare the images.
    """

    agreement: Agreement
    elsewhere: Mapping[str, Agreement]
    notes: tuple[str, ...] = ()
    prepares: bool = True


Check = Callable[[Path], Proven]
"""Checks a written export; raises a RunError if it disagrees with the model."""


class Side(NamedTuple):
    """One side to compare with the model, and the largest allowed difference of a probability."""

    ask: Asked
    allowed: float = ALLOWED


def compare(
    task: Task[Any, Any], ours: Asked, sides: Mapping[str, Side], pictures: Iterator[Pixels], shown: int
) -> dict[str, Agreement]:
    """Compare each side with the model on all images; `shown` is the number of different images."""
    tallies = {name: _Tally(task, side) for name, side in sides.items()}
    sizes: list[tuple[int, int]] = []
    for part in batched(pictures, BATCH):
        sizes += [shape_of(picture) for picture in part]
        wanted = ours(part)
        for tally in tallies.values():
            tally.add(wanted, part)
    by_area = sorted(sizes, key=lambda size: size[0] * size[1])
    return {
        name: Agreement(
            tally.side.allowed, shown, len(sizes), len(set(sizes)), by_area[0], by_area[-1],
            tally.drift, tally.same, tally.ties, task.agreement,
        )
        for name, tally in tallies.items()
    }  # fmt: skip


class _Tally:
    """Accumulated comparison of one side with the model."""

    def __init__(self, task: Task[Any, Any], side: Side) -> None:
        self.task, self.side = task, side
        self.drift, self.same, self.ties = 0.0, 0, 0

    def add(self, ours: Output, part: Sequence[Pixels]) -> None:
        theirs = self.side.ask(part)
        _refuse_other_shapes({name: ours[name] for name in self.task.outputs}, theirs)
        apart = (self.task.fingerprint(ours) - self.task.fingerprint(theirs)).abs().amax(1)
        settled = self._settled(ours)
        # NaN must not count as equal, wherever it is.
        counted = apart[settled | apart.isnan()].nan_to_num(float("inf"))
        self.drift = max(self.drift, *counted.tolist(), 0.0)
        equal = self.task.agree(ours, theirs)
        self.same += int(equal.sum())
        almost = self.task.agree(ours, theirs, self.side.allowed) | ~settled
        self.ties += int((~equal & almost).sum())

    def _settled(self, ours: Output) -> Tensor:
        """Return for which images the prediction does not hang on the last bit of a number: bool (b,)."""
        settled: Tensor = getattr(self.task, "settled", _always)(ours)
        return settled


def _always(output: Output) -> Tensor:
    return torch.ones(len(next(iter(output.values()))), dtype=torch.bool)


def _refuse_other_shapes(ours: Output, theirs: Output) -> None:
    for name, tensor in ours.items():
        if tensor.shape != theirs[name].shape:
            raise RunError(
                f"The export has an output of shape {tuple(theirs[name].shape)}, the model of {tuple(tensor.shape)}."
            )


def batched(pictures: Iterator[Pixels], size: int) -> Iterator[list[Pixels]]:
    """Yield lists of `size` images; the last one may be shorter."""
    while part := list(islice(pictures, size)):
        yield part


def demand(found: Agreement, what: str) -> None:
    """Raise a RunError if the two sides disagree; the export is then not written."""
    if found.drift <= found.allowed and found.same_top + found.ties == found.pictures:
        return
    raise RunError(
        f"The {what} disagrees with the model: {found}. Allowed are differences up to {found.allowed} and no other "
        "top answer. Nothing was written. Export another format, or report this with the name of the network."
    )
