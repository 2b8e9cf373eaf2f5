"""The whole way from raw pixels to answers as one module that can be traced.

The one resize of the package (`vitrail.data.resize`) is written here as two matrix products, whose
weights are computed from the height and the width of the image at hand. Every output has a fixed size: the crop
and the pad are folded into the rows of the weights, so that no shape depends on a number inside the graph.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.data.batch import Batch
from vitrail.data.preprocess import Preprocess
from vitrail.data.resize import LEAST_DATA, Interpolation
from vitrail.infer.runtimes import output_names, readable
from vitrail.layers.heads import Output
from vitrail.layers.sdpa import Recorder
from vitrail.runs.network import Network
from vitrail.runs.run_network import ASK
from vitrail.tasks.base import Task


class Axis(NamedTuple):
    """How one side of an image becomes one side of the input: whole numbers kept as scalar tensors."""

    new: Tensor  # pixels of the whole resized side
    corner: Tensor  # where the input begins on it; negative where the input is padded
    size: int  # pixels of the input


class Places(NamedTuple):
    """Where the pixels of one side of the input lie on the image, as whole numbers and fractions (size,)."""

    pixel: Tensor  # the old pixel in which the middle of a new one lies
    place: Tensor  # and where in it, from 0 to 1
    step: Tensor  # (1,) how many whole old pixels a new one is wide, one at least
    part: Tensor  # (1,) and which part of another
    on: Tensor  # whether the new pixel lies on the image


class Prepare(nn.Module):
    """(b, height, width, channels) -> (b, channels, *size): `Preprocess.eval` as matrix products.

    The images are uint8, or float32 where the network takes raw ones, with NaN where no data are.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        if preprocess.zoom is not None:
            raise SettingError(
                "A model that answers in windows (zoom) is no single graph of an image. Train with --set zoom=0 "
                "to export, or predict with the run itself."
            )
        self.preprocess = preprocess
        self.register_buffer(
            "mean", preprocess.scale * torch.tensor(preprocess.mean).view(-1, 1, 1), persistent=False
        )
        self.register_buffer(
            "std", preprocess.scale * torch.tensor(preprocess.std).view(-1, 1, 1), persistent=False
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's input."""
        height, width = images.shape[1], images.shape[2]
        # Scalars as tensors: the exporters then compute them from the image instead of fixing them for the sample.
        tall = torch.full((), height, dtype=torch.int64)
        wide = torch.full((), width, dtype=torch.int64)
        down, across = plan(self.preprocess, tall, wide)
        places = placed((tall, wide), (down, across))
        rows, cols = (
            weights(length, place, self.preprocess.interpolation)
            for length, place in zip((height, width), places, strict=True)
        )
        # The mean goes first: of numbers about zero a runtime that keeps 8 bits loses little, and what lies off the
        # image, where all weights are zero, is zero by itself.
        pixels = images.permute(0, 3, 1, 2).float()
        if not self.preprocess.raw:
            shown: Tensor = rows @ ((pixels - self.mean) @ cols.T) / self.std
            return shown
        gaps = torch.isnan(pixels)  # weighed as in `vitrail.data.resize`
        share = rows @ ((~gaps).float() @ cols.T)
        # White of 16 bits is infinite in f16, whose largest number is 65504; in float32 this bound changes nothing.
        finite = pixels.clamp(max=torch.finfo(torch.float32).max)
        small = torch.where(gaps, torch.zeros_like(pixels), (finite - self.mean) / self.std)
        known = rows @ (small @ cols.T)
        enough = share >= LEAST_DATA
        return torch.where(enough, known, torch.zeros_like(known)) / torch.where(
            enough, share, torch.ones_like(share)
        )


def plan(preprocess: Preprocess, height: Tensor, width: Tensor) -> tuple[Axis, Axis]:
    """Return how the height and the width are resized and cut, in whole numbers as `Preprocess` computes them."""
    rows, cols = preprocess.size
    zero = torch.zeros_like(height)
    aim = int(rows / preprocess.crop_fraction), int(cols / preprocess.crop_fraction)
    if preprocess.fit == "squash":
        tall, wide = zero + aim[0], zero + aim[1]
    elif preprocess.fit == "pad":
        by_rows = aim[0] * width <= aim[1] * height
        tall = torch.where(by_rows, zero + aim[0], _rounded(height * aim[1], width).clamp(min=1))
        wide = torch.where(by_rows, _rounded(width * aim[0], height).clamp(min=1), zero + aim[1])
    else:
        by_rows = aim[0] * width >= aim[1] * height
        tall = torch.where(by_rows, zero + aim[0], (aim[1] * height // width).clamp(min=aim[0]))
        wide = torch.where(by_rows, (aim[0] * width // height).clamp(min=aim[1]), zero + aim[1])
    return Axis(tall, _corner(tall - rows), rows), Axis(wide, _corner(wide - cols), cols)


def placed(full: tuple[Tensor, Tensor], axes: tuple[Axis, Axis]) -> list[Places]:
    """Return where the pixels of the input lie on both sides of the image, `full` pixels long.

    The middle of a new pixel, (2 at + 1) full / (2 new), is a whole pixel and a place in it. Places are large and their
    distances small: whole numbers are subtracted, and fractions come last.
    """
    at = [torch.arange(axis.size) + axis.corner for axis in axes]
    above, below = [], []
    for side, length, axis in zip(at, full, axes, strict=True):
        above += [(2 * side + 1) * length, torch.maximum(length, axis.new)[None]]
        below += [(2 * axis.new).expand(axis.size), axis.new[None]]
    # All in one: exporters write a division of whole numbers as nine nodes.
    whole, fraction = divided(torch.cat(above), torch.cat(below))
    sizes = [size for axis in axes for size in (axis.size, 1)]
    wholes, fractions = torch.split(whole, sizes), torch.split(fraction, sizes)
    return [
        Places(
            wholes[2 * i],
            fractions[2 * i],
            wholes[2 * i + 1],
            fractions[2 * i + 1],
            (at[i] >= 0) & (at[i] < axis.new),
        )
        for i, axis in enumerate(axes)
    ]


def weights(length: int, places: Places, interpolation: Interpolation) -> Tensor:
    """Return the weights (size, length) of one side's resize; those of pixels off the image are zero.

    The same weights as `vitrail.data.resize.taps`, but for every pixel of the side, most of them zero.
    """
    most = 2 * places.step + 4  # beyond the kernel's reach
    apart = (torch.arange(length)[None] - places.pixel[:, None]).clamp(-most, most)
    scale = places.step.float() + places.part
    raw = kernel((apart.float() + (0.5 - places.place)[:, None]) / scale, interpolation)
    total = raw.sum(1, keepdim=True)
    # Rows off the image may sum to zero; they are masked, but must not divide by it.
    safe = torch.where(total.abs() < 1e-6, torch.ones_like(total), total)
    return torch.where(places.on[:, None], raw / safe, torch.zeros_like(raw))


def kernel(apart: Tensor, interpolation: Interpolation) -> Tensor:
    """Return the weights at a distance, those of `vitrail.data.resize.kernel` written as products.

    There large terms cancel each other near the zeros; here each factor is near zero itself, in however few bits.
    """
    x = apart.abs().clamp(max=2)
    if interpolation == "bilinear":
        return (1 - x).clamp(min=0)
    return (1 - x) * torch.where(x < 1, 1 + x - 1.5 * x * x, 0.5 * (x - 2) * (x - 2))


def spread_onto(
    preprocess: Preprocess, picture: tuple[int, int], rows: int, cols: int
) -> tuple[Tensor, Tensor]:
    """Return the weights that bring a map of the input to an image: (height, rows) and (width, cols).

    Those of `vitrail.data.view.maps_in_original`; beyond the input the outermost cell answers.
    """
    height, width = picture
    tall = torch.full((), height, dtype=torch.int64)
    wide = torch.full((), width, dtype=torch.int64)
    down, across = plan(preprocess, tall, wide)
    return _linear(height, tall, down, rows), _linear(width, wide, across, cols)


def _linear(length: int, full: Tensor, axis: Axis, cells: int) -> Tensor:
    """Return how much each cell of a side of the input counts at each pixel of the image: (length, cells)."""
    places = torch.arange(length).double() + 0.5
    at = (places * axis.new / full - axis.corner) * (cells / axis.size) - 0.5
    apart = (at.clamp(0, cells - 1)[:, None] - torch.arange(cells).double()[None]).abs()
    return (1 - apart).clamp(min=0).float()


def _corner(over: Tensor) -> Tensor:
    two = torch.full_like(over, 2)
    return torch.where(over > 0, _rounded(over, two), over // two)


def divided(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return a / b, of whole numbers and b above zero, as the whole number below it and the fraction in float32.

    The fraction is summed from digits of 8 bits, so that no number on the way is rounded or too large for 16 bits.
    """
    whole = a // b  # `torch.div(…, rounding_mode="floor")` would be written as a division of floats
    rest, digits = a - whole * b, []
    for _ in range(3):
        digits.append(256 * rest // b)
        rest = 256 * rest - digits[-1] * b
    fraction = torch.zeros_like(a, dtype=torch.float32)
    for digit in reversed(digits):
        fraction = (digit.float() + fraction) / 256
    return whole, fraction


def _rounded(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b rounded, halves to the even number, in whole numbers."""
    low = a // b
    twice = 2 * (a - low * b)  # against b: below, at or above the half
    up = (twice > b) | ((twice == b) & (low % 2 == 1))
    return low + up.to(low.dtype)


class EndToEnd(nn.Module):
    """Images (b, height, width, channels) of one size -> what people read of them, and the task's raw outputs."""

    def __init__(self, network: Network, task: Task[Any, Any], preprocess: Preprocess) -> None:
        super().__init__()
        self.prepare = Prepare(preprocess)
        self.network, self.task = network, task

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs that `output_names` names, batch axis first."""
        # Without ids, whose number would be fixed in the graph.
        batch: Batch[None] = Batch({"images": self.prepare(images)}, None, ())
        return self.named(self.task.answer(self.network, batch, ASK), images)

    def named(self, output: Output, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of images in order."""
        spread = partial(spread_onto, self.prepare.preprocess, (images.shape[1], images.shape[2]))
        every = {**readable(self.task, output, spread), **output}
        return tuple(every[name] for name in output_names(self.task))


class EndToEndWithAttention(EndToEnd):
    """The same, and where the class token looks in the last block, (b, row, col), mean over the heads."""

    def __init__(self, network: Network, task: Task[Any, Any], preprocess: Preprocess) -> None:
        super().__init__(network, task, preprocess)
        spec = network.spec
        if spec.attention != "softmax" or "cls" not in spec.prefix:
            raise SettingError(
                "This network has no class token whose attention could be exported. Leave --attention out."
            )
        self.asks, self.skipped = spec.prefix.index("cls"), len(spec.prefix)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, and the attention of the class token to the patches (b, row, col)."""
        recorder, inputs = Recorder(), {"images": self.prepare(images)}
        features = self.network.encode(inputs, recorder)
        output = self.network.head(features, inputs)
        looks = recorder.maps[-1].weights[:, :, self.asks, self.skipped :].mean(1)
        return *self.named(output, images), looks.reshape(-1, *features.tokens.grid)


class Single(nn.Module):
    """The same for one image (height, width, channels); its outputs have no batch axis."""

    def __init__(self, whole: EndToEnd) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of one image."""
        return tuple(one[0] for one in self.whole(image[None]))
