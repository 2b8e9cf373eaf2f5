"""A batch, and the position of its inputs in the original images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Target = TypeVar("Target")


@dataclass(frozen=True, slots=True)
class Geometry:
    """Position of a network input in the original image: `box` is the area that the input shows, in original pixels.

    `original` and `size` are (height, width); `box` is (top, left, bottom, right), larger than the original if the
    input is padded and smaller if it is cropped. `moved` maps (x, y, 1) of an input pixel to its position after
    augmentation, two rows of three; None without augmentation, as in prediction. `spacing` is the pixel size of the
    original (mm down, mm across), if its file states it and the task measures. `times` are the seconds of the frames of
    a clip, from the start of its file; all its frames lie in the same place.
    """

    original: tuple[int, int]
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    moved: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    spacing: tuple[float, float] | None = None
    times: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch(Generic[Target]):
    """Inputs of a network and its loss: tensors by name, the targets, one id per image.

    `inputs` contains "images", float32 (b, channels, height, width), or of clips (b, t, channels, height, width), and
    all other inputs of a network or its head (a time step, clicks, tokens of a text), with the batch axis first.
    `targets` is the result of `Task.collate`: a tensor, a sequence, or a mapping of these.
    """

    inputs: Mapping[str, Tensor]
    targets: Any
    ids: tuple[str, ...]
    geometry: tuple[Geometry, ...] = ()

    @property
    def images(self) -> Tensor:
        """The images: (b, channels, height, width); clips: (b, t, channels, height, width)."""
        return self.inputs["images"]

    def __len__(self) -> int:
        return len(self.images)

    def with_images(self, images: Tensor, targets: Any) -> Batch[Any]:
        """Return the batch with other images and targets, for example after mixing."""
        return replace(self, inputs={**self.inputs, "images": images}, targets=targets)

    def to(
        self, device: torch.device, layout: torch.memory_format = torch.contiguous_format
    ) -> Batch[Target]:
        """Return the batch with its tensors on a device, its images in a memory format.

        From pinned memory the copy is asynchronous.
        """
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=True))
        if layout == torch.contiguous_format:
            return moved
        return moved.with_images(in_layout(moved.images, layout), moved.targets)

    def pin_memory(self) -> Batch[Target]:
        """Return the batch in page-locked memory, for asynchronous copies to a GPU; a DataLoader calls it."""
        return self._each(Tensor.pin_memory)

    def slice(self, low: int, high: int) -> Batch[Target]:
        """Return the part of the batch from image `low` to before `high`."""
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
    """Return a batch of images (b, channels, height, width) without targets."""
    return Batch({"images": images}, None, ("",) * len(images))


def in_layout(images: Tensor, layout: torch.memory_format) -> Tensor:
    """Return images in a memory format; clips, which have one axis more, stay contiguous."""
    return images.contiguous(memory_format=layout) if images.ndim == 4 else images.contiguous()


def _sliced(targets: Any, low: int, high: int) -> Any:
    if isinstance(targets, Mapping):
        return {name: _sliced(part, low, high) for name, part in targets.items()}
    if targets is None or (isinstance(targets, Tensor) and targets.ndim == 0):
        return targets
    return targets[low:high]


def _changed(targets: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return targets with `change` applied to every tensor, also inside mappings and sequences."""
    if isinstance(targets, Tensor):
        return change(targets)
    if isinstance(targets, Mapping):
        return {name: _changed(part, change) for name, part in targets.items()}
    if isinstance(targets, list | tuple):
        parts = [_changed(part, change) for part in targets]
        return parts if isinstance(targets, list) else tuple(parts)
    return targets
