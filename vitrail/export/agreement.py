"""The proof of an export: the model's own images, in many sizes, asked of both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vitrail.core.errors import RunError
from vitrail.data.labels import count
from vitrail.infer.predictor import Predictor
from vitrail.infer.proof_images import Pixels, Reader
from vitrail.layers.heads import Output
from vitrail.tasks.base import Task

LEAST = 200
"""Images that an export is proven on."""

ALLOWED = 1e-3
"""How far a number of a fingerprint, a probability, may drift in float32."""

FEW_BITS = 0.05
"""How far it may drift where a runtime computes in fewer bits by itself, or a library resizes its own way; as for
`vitrail predict`'s own quick ways."""

SAME_TOP = 0.995
"""The share of top answers that must be the same there."""

BATCH = 16
"""Images held at once; one of them may be large."""

LARGEST = (3000, 4000)
SMALLEST = (17, 23)

Asked = Callable[[Sequence[Pixels]], Output]
"""From images, each (height, width, channels), to the task's raw outputs, batch axis first."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the two sides said: largest drift of a probability, and how often the top answer was the same.

    `shown` counts the images, `pictures` what was asked: each as it is or stretched, both where there are few.
    `ties` are those whose top answers differ while the model itself holds both for equal within the allowed drift;
    `said` tells what it is that agrees.
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
        """Whether nearly all top answers are the same, and no probability drifts further than allowed."""
        return self.drift <= self.allowed and self.same_top + self.ties >= SAME_TOP * self.pictures

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {name: value for name, value in asdict(self).items() if name != "said"}

    def __str__(self) -> str:
        small, large = (f"{height} x {width}" for height, width in (self.smallest, self.largest))
        return (
            f"{self.same_top} of {self.pictures} {self.said} ({self.ties} ties), no probability is "
            f"further off than {self.drift:.1e}; {count(self.shown, 'image')} in {self.sizes} sizes from {small} "
            f"to {large}"
        )


def many_sizes(readers: Sequence[Reader], least: int = LEAST) -> Iterator[Pixels]:
    """Yield at least `least` images: half as they are, half in drawn sizes, the smallest and the largest among them.

    A run whose images are all of one size would prove nothing about others.
    """
    draw = np.random.default_rng(0)
    many = max(least, len(readers))
    for i in range(many):
        picture = readers[i // 2 % len(readers) if many > len(readers) else i]()
        if i % 2 == 0:
            yield picture
            continue
        size = {1: SMALLEST, 3: LARGEST}.get(i)
        height, width = size or (int(side) for side in np.exp(draw.uniform(np.log(24), np.log(700), 2)))
        yield _stretched(picture, height, width)


def _stretched(picture: Pixels, height: int, width: int) -> Pixels:
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
    """Return how many images `many_sizes` shows: of too few each stands twice, as it is and stretched."""
    return len(readers) if len(readers) >= LEAST else min(len(readers), LEAST // 2)


@dataclass(frozen=True, slots=True)
class Proven:
    """How what was written agreed with the model, there and elsewhere by name, and what there is to say of it.

    `prepares` is false for a folder whose library does not prepare the images.
    """

    agreement: Agreement
    elsewhere: Mapping[str, Agreement]
    notes: tuple[str, ...] = ()
    prepares: bool = True


Check = Callable[[Path], Proven]
"""Asks what was written; raises where it does not answer as the model."""


class Side(NamedTuple):
    """One that is asked beside the model, and how far a probability of it may drift."""

    ask: Asked
    allowed: float = ALLOWED


def compare(
    task: Task[Any, Any], ours: Asked, sides: Mapping[str, Side], pictures: Iterator[Pixels], shown: int
) -> dict[str, Agreement]:
    """Ask the model, and each side beside it, about every image, which so many were made into."""
    tallies = {name: _Tally(task, side) for name, side in sides.items()}
    sizes: list[tuple[int, int]] = []
    for part in batched(pictures, BATCH):
        sizes += [(picture.shape[0], picture.shape[1]) for picture in part]
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
    """What one side said, counted."""

    def __init__(self, task: Task[Any, Any], side: Side) -> None:
        self.task, self.side = task, side
        self.drift, self.same, self.ties = 0.0, 0, 0

    def add(self, ours: Output, part: Sequence[Pixels]) -> None:
        theirs = self.side.ask(part)
        _refuse_other_shapes(ours, theirs)
        apart = float((self.task.fingerprint(ours) - self.task.fingerprint(theirs)).abs().max())
        self.drift = max(
            self.drift, apart if apart == apart else float("inf")
        )  # a NaN must not pass for no drift
        equal = self.task.agree(ours, theirs)
        self.same += int(equal.sum())
        self.ties += int((~equal & self.task.agree(ours, theirs, self.side.allowed)).sum())


def _refuse_other_shapes(ours: Output, theirs: Output) -> None:
    for name, tensor in ours.items():
        if tensor.shape != theirs[name].shape:
            raise RunError(
                f"The export answers in the shape {tuple(theirs[name].shape)}, the model in {tuple(tensor.shape)}."
            )


def batched(pictures: Iterator[Pixels], size: int) -> Iterator[list[Pixels]]:
    """Yield lists of so many images, the last one shorter."""
    while part := list(islice(pictures, size)):
        yield part


def demand(found: Agreement, what: str) -> None:
    """Raise a RunError where the two sides drift apart: nothing is written then."""
    if found.drift <= found.allowed and found.same_top + found.ties == found.pictures:
        return
    raise RunError(
        f"The {what} does not answer as the model does: {found}; allowed are {found.allowed} and no other top answer. "
        "Nothing was written. Export another format, or report this with the name of the network."
    )
