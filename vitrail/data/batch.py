"""One batch, and where the network's pixels lie in the original image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Target = TypeVar("Target")


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a network input lies on its original: `box` is what the input shows, in original pixels.

    `original` and `size` are (height, width); `box` is (top, left, bottom, right), larger than the original
    where the input was padded and smaller where it was cropped. `moved` takes (x, y, 1) of an input pixel to where an
    augmentation moved it, two rows of three; None where nothing moved, as at prediction. `spacing` is (mm down, mm
    across) of a pixel of the original, where its file states it and the task measures.
    """

    original: tuple[int, int]
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    moved: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    spacing: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Batch(Generic[Target]):
    """What a network and a loss take: tensors by name, the truths, one id an image.

    `inputs` holds "images", float32 (b, channels, height, width), and whatever else a network or its head reads (a
    time step, clicks, tokens of a text), batch axis first. `targets` is what `Task.collate` made: a tensor, a sequence,
    or a mapping of these.
    """

    inputs: Mapping[str, Tensor]
    targets: Any
    ids: tuple[str, ...]
    geometry: tuple[Geometry, ...] = ()

    @property
    def images(self) -> Tensor:
        """The images: (b, channels, height, width)."""
        return self.inputs["images"]

    def __len__(self) -> int:
        return len(self.images)

    def with_images(self, images: Tensor, targets: Any) -> Batch[Any]:
        """Return the batch with other images and truths, as after mixing."""
        return replace(self, inputs={**self.inputs, "images": images}, targets=targets)

    def to(self, device: torch.device) -> Batch[Target]:
        """Return the batch with its tensors on a device; from pinned memory the copy does not wait."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch[Target]:
        """Return the batch in page-locked memory, from which copies to a GPU do not wait; a DataLoader calls it."""
        return self._each(Tensor.pin_memory)

    def slice(self, low: int, high: int) -> Batch[Target]:
        """Return the images from `low` to before `high` with all that belongs to them."""
        return replace(
            self,
            inputs={name: tensor[low:high] for name, tensor in self.inputs.items()},
            targets=_sliced(self.targets, low, high),
            ids=self.ids[low:high],
            geometry=self.geometry[low:high],
        )

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch[Target]:
        inputs = {name: change(tensor) for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, targets=_changed(self.targets, change))


def images_only(images: Tensor) -> Batch[None]:
    """Return a batch of images (b, channels, height, width) whose truths nobody asks for."""
    return Batch({"images": images}, None, ("",) * len(images))


def _sliced(targets: Any, low: int, high: int) -> Any:
    if isinstance(targets, Mapping):
        return {name: _sliced(part, low, high) for name, part in targets.items()}
    if targets is None or (isinstance(targets, Tensor) and targets.ndim == 0):
        return targets
    return targets[low:high]


def _changed(targets: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return targets with every tensor changed, wherever it stands in them."""
    if isinstance(targets, Tensor):
        return change(targets)
    if isinstance(targets, Mapping):
        return {name: _changed(part, change) for name, part in targets.items()}
    if isinstance(targets, list | tuple):
        parts = [_changed(part, change) for part in targets]
        return parts if isinstance(targets, list) else tuple(parts)
    return targets
