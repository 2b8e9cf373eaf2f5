"""The complete model, from raw pixels to outputs, as one traceable module.

The resize of the package (`vitrail.data.resize`) is written here as two matrix products, with weights computed from the
height and width of the image. Every output has a fixed size: crop and padding are part of the weight rows, so that no
shape depends on a value inside the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.data.batch import Batch
from vitrail.data.preprocess import Preprocess
from vitrail.data.resize import LEAST_DATA, Interpolation
from vitrail.infer.runtimes import output_names, readable
from vitrail.layers.elastic import at_size
from vitrail.layers.heads import Output
from vitrail.layers.sdpa import AttentionMap, Recorder
from vitrail.layers.tokens import class_tokens
from vitrail.runs.network import Network
from vitrail.runs.run_network import ASK
from vitrail.tasks.base import Task


class Axis(NamedTuple):
    """How one side of an image maps to one side of the input, as integer scalar tensors."""

    new: Tensor  # pixels of the whole resized side
    corner: Tensor  # offset of the input on it; negative if the input is padded
    size: int  # pixels of the input


class Places(NamedTuple):
    """Positions on the image of the pixels of one side of the input, as integers and fractions (size,)."""

    pixel: Tensor  # the image pixel that contains the centre of the input pixel
    place: Tensor  # position inside that pixel, from 0 to 1
    step: Tensor  # (1,) width of an input pixel in image pixels, integer part, at least one
    part: Tensor  # (1,) fractional part of that width
    on: Tensor  # whether the input pixel lies on the image


class Prepare(nn.Module):
    """(b, height, width, channels) -> (b, channels, *size): `Preprocess.eval` as matrix products.

    The images are uint8, or float32 for networks on raw images, with NaN for missing data.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        if preprocess.zoom is not None:
            raise SettingError(
                "A model with sliding windows (zoom) cannot be exported as one graph. Train with --set zoom=0 "
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
        # Scalars as tensors: exporters then compute them from the image instead of fixing the sample's values.
        tall = torch.full((), height, dtype=torch.int64)
        wide = torch.full((), width, dtype=torch.int64)
        down, across = plan(self.preprocess, tall, wide)
        places = placed((tall, wide), (down, across))
        rows, cols = (
            weights(length, place, self.preprocess.interpolation)
            for length, place in zip((height, width), places, strict=True)
        )
        # Subtract the mean first: values around zero lose little in low precision (bf16 keeps 8 bits), and pixels off
        # the image, where all weights are zero, become zero.
        pixels = images.permute(0, 3, 1, 2).float()
        if not self.preprocess.raw:
            shown: Tensor = rows @ ((pixels - self.mean) @ cols.T)
            if self.preprocess.rounded:
                shown = self._whole(shown, places)
            return shown / self.std
        gaps = torch.isnan(pixels)  # weighted as in `vitrail.data.resize`
        share = rows @ ((~gaps).float() @ cols.T)
        # 16-bit white overflows in f16 (largest number 65504); in float32 this bound changes nothing.
        finite = pixels.clamp(max=torch.finfo(torch.float32).max)
        small = torch.where(gaps, torch.zeros_like(pixels), (finite - self.mean) / self.std)
        known = rows @ (small @ cols.T)
        enough = share >= LEAST_DATA
        return torch.where(enough, known, torch.zeros_like(known)) / torch.where(
            enough, share, torch.ones_like(share)
        )

    def _whole(self, shown: Tensor, places: Sequence[Places]) -> Tensor:
        """Round the pixels on the image, given without their mean, to whole numbers from 0 to 255."""
        whole = (shown + self.mean).round().clamp(0, 255) - self.mean
        rows, cols = (place.on for place in places)
        return torch.where(rows[:, None] & cols[None], whole, shown)


def plan(preprocess: Preprocess, height: Tensor, width: Tensor) -> tuple[Axis, Axis]:
    """Return how height and width are resized and cropped, in integers, as `Preprocess` computes them."""
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
    """Return the positions of input pixels along both sides of the image, `full` pixels long.

    The centre of an input pixel, (2 at + 1) full / (2 new), is an integer pixel and a position in it. Positions are
    large and their distances small: integers are subtracted first, and fractions are added last.
    """
    at = [torch.arange(axis.size) + axis.corner for axis in axes]
    above, below = [], []
    for side, length, axis in zip(at, full, axes, strict=True):
        above += [(2 * side + 1) * length, torch.maximum(length, axis.new)[None]]
        below += [(2 * axis.new).expand(axis.size), axis.new[None]]
    # One division for all: exporters write an integer division as nine nodes.
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
    """Return the resize weights (size, length) of one side; they are zero for pixels off the image.

    The same weights as `vitrail.data.resize.taps`, as a dense matrix, mostly zeros.
    """
    most = 2 * places.step + 4  # beyond the kernel's reach
    apart = (torch.arange(length)[None] - places.pixel[:, None]).clamp(-most, most)
    scale = places.step.float() + places.part
    raw = kernel((apart.float() + (0.5 - places.place)[:, None]) / scale, interpolation)
    total = raw.sum(1, keepdim=True)
    # Rows off the image may sum to zero; they are masked, but the division must be safe.
    safe = torch.where(total.abs() < 1e-6, torch.ones_like(total), total)
    return torch.where(places.on[:, None], raw / safe, torch.zeros_like(raw))


def kernel(apart: Tensor, interpolation: Interpolation) -> Tensor:
    """Return the kernel weights at a distance: `vitrail.data.resize.kernel`, factored into products.

    Its large terms cancel near the zeros; here each factor is itself near zero, in any precision.
    """
    x = apart.abs().clamp(max=2)
    if interpolation == "bilinear":
        return (1 - x).clamp(min=0)
    return (1 - x) * torch.where(x < 1, 1 + x - 1.5 * x * x, 0.5 * (x - 2) * (x - 2))


class InGraph(NamedTuple):
    """Where outputs lie in an image (height, width) whose size a graph computes with."""

    preprocess: Preprocess
    picture: tuple[int, int]

    def weights(self, rows: int, cols: int) -> tuple[Tensor, Tensor]:
        """Return the weights that resize a map of the input to the image: (height, rows) and (width, cols).

        The same as in `vitrail.data.view.maps_in_original`; beyond the input the nearest cell is used.
        """
        (height, width), (tall, wide) = self.picture, self._sides()
        down, across = plan(self.preprocess, tall, wide)
        return _linear(height, tall, down, rows), _linear(width, wide, across, cols)

    def boxes(self, xyxy: Tensor) -> Tensor:
        """Return boxes (…, 4) in shares of the input as pixels of the image, clipped at its border."""
        tall, wide = self._sides()
        down, across = plan(self.preprocess, tall, wide)
        y, x = (_along(xyxy[..., i::2], full, axis) for i, full, axis in ((1, tall, down), (0, wide, across)))
        return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], -1)

    def _sides(self) -> tuple[Tensor, Tensor]:
        """Return height and width as tensors, so that exporters compute with them."""
        height, width = self.picture
        return torch.full((), height, dtype=torch.int64), torch.full((), width, dtype=torch.int64)


def _along(shares: Tensor, full: Tensor, axis: Axis) -> Tensor:
    """Return positions in shares of one side of the input as pixels of that side of the image, inside it."""
    at = (shares * axis.size + axis.corner) * (full.float() / axis.new.float())
    return torch.minimum(at.clamp(min=0), full.float())


def _linear(length: int, full: Tensor, axis: Axis, cells: int) -> Tensor:
    """Return the weight of each cell of the input at each pixel of the image, along one side: (length, cells)."""
    places = torch.arange(length).double() + 0.5
    at = (places * axis.new / full - axis.corner) * (cells / axis.size) - 0.5
    apart = (at.clamp(0, cells - 1)[:, None] - torch.arange(cells).double()[None]).abs()
    return (1 - apart).clamp(min=0).float()


def _corner(over: Tensor) -> Tensor:
    two = torch.full_like(over, 2)
    return torch.where(over > 0, _rounded(over, two), over // two)


def divided(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return a / b of integers, b > 0, as the floor and the fraction in float32.

    The fraction is built from 8-bit digits, so that no intermediate value is rounded or too large for f16.
    """
    whole = a // b  # exporters write `torch.div(…, rounding_mode="floor")` as a float division
    rest, digits = a - whole * b, []
    for _ in range(3):
        digits.append(256 * rest // b)
        rest = 256 * rest - digits[-1] * b
    fraction = torch.zeros_like(a, dtype=torch.float32)
    for digit in reversed(digits):
        fraction = (digit.float() + fraction) / 256
    return whole, fraction


def _rounded(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b rounded half to even, in integers."""
    low = a // b
    twice = 2 * (a - low * b)  # compare with b: below, at or above one half
    up = (twice > b) | ((twice == b) & (low % 2 == 1))
    return low + up.to(low.dtype)


class Resized(nn.Module):
    """(b, channels, *old) -> (b, channels, *new): `vitrail.layers.elastic.at_size` as matrix products."""

    down: Tensor
    across: Tensor

    def __init__(self, old: tuple[int, int], new: tuple[int, int]) -> None:
        super().__init__()
        for name, before, after in zip(("down", "across"), old, new, strict=True):
            weights = at_size(torch.eye(before)[None, None], (after, before))[0, 0]  # (after, before)
            self.register_buffer(name, weights, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the smaller images."""
        return self.down @ (images @ self.across.T)


class EndToEnd(nn.Module):
    """Images (b, height, width, channels) of one size -> readable outputs and the task's raw outputs.

    For a network of clips, (b, frames, height, width, channels): every frame is prepared as an image is.
    The network is that of an operating point; `size` is the size of its input, to which prepared images are resized
    again where it was trained for several.
    """

    def __init__(
        self, network: Network, task: Task[Any, Any], preprocess: Preprocess, size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.prepare = Prepare(preprocess)
        self.again = nn.Identity() if size == preprocess.size else Resized(preprocess.size, size)
        self.network, self.task = network, task

    def inputs(self, images: Tensor) -> dict[str, Tensor]:
        """Return the inputs of the network by name."""
        if not (frames := self.prepare.preprocess.frames):
            return {"images": self.again(self.prepare(images))}
        prepared = self.again(self.prepare(images.flatten(0, 1)))
        return {"images": rearrange(prepared, "(b t) c h w -> b t c h w", t=frames)}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs listed by `output_names`, batch axis first."""
        # No ids: their number would be fixed in the graph.
        batch: Batch[None] = Batch(self.inputs(images), None, ())
        return self.named(self.task.answer(self.network, batch, ASK), images)

    def named(self, output: Output, images: Tensor) -> tuple[Tensor, ...]:
        """Return readable and raw outputs in the order of `output_names`."""
        onto = InGraph(self.prepare.preprocess, (images.shape[-3], images.shape[-2]))
        every = {**readable(self.task, output, onto), **output}
        return tuple(every[name] for name in output_names(self.task))


class EndToEndWithAttention(EndToEnd):
    """The same with the attention of the class token in the last block, mean over the heads.

    It is (b, row, col), of clips (b, frames, row, col).
    """

    def __init__(
        self, network: Network, task: Task[Any, Any], preprocess: Preprocess, size: tuple[int, int]
    ) -> None:
        super().__init__(network, task, preprocess, size)
        spec = network.spec
        self.asks, self.skipped = class_tokens(spec.prefix), len(spec.prefix)
        if spec.attention != "softmax" or not self.asks:
            raise SettingError(
                "This network has no class token whose attention could be exported. Remove --attention."
            )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs and the attention of the class token to the patches."""
        recorder, inputs = Recorder(), self.inputs(images)
        features = self.network.encode(inputs, recorder)
        output = self.network.read(features, inputs)
        looks = _row(recorder.maps[-1], self.asks)[:, self.skipped :]
        return *self.named(output, images), looks.reshape(-1, *features.tokens.grid)


def _row(attention: AttentionMap, asks: Sequence[int]) -> Tensor:
    """Return the attention of prefix tokens to all tokens, also those that were dropped or merged: (b, n), the mean."""
    here = slice(asks[0], asks[-1] + 1)
    if attention.weights.shape[-1] == attention.size[1]:
        return attention.weights[:, :, here].mean((1, 2))
    share = None if attention.share is None else attention.share[..., here]
    row = attention._replace(
        weights=attention.weights[:, :, here], rows=attention.rows[..., here], share=share
    )
    wanted = F.one_hot(torch.tensor(list(asks)), attention.size[0]).sum(0).to(row.weights.dtype) / len(asks)
    return row.left_multiply(wanted.expand(row.weights.shape[0] // row.groups, -1))


class Single(nn.Module):
    """The same for one image (height, width, channels), or one clip; its outputs have no batch axis."""

    def __init__(self, whole: EndToEnd) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of one image."""
        return tuple(one[0] for one in self.whole(image[None]))
