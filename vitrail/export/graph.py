"""The whole way from raw pixels to answers as one module that can be traced.

The one resize of the package (`vitrail.data.resize`) is written here as two matrix products, whose
weights are computed from the height and the width of the picture at hand. Every output has a fixed size: the crop
and the pad are folded into the rows of the weights, so that no shape depends on a number inside the graph.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.data.preprocess import Preprocess
from vitrail.data.resize import LEAST_DATA, Interpolation, kernel
from vitrail.data.sample import images_only
from vitrail.infer.exported import output_names, readable
from vitrail.layers.attend import Recorder
from vitrail.layers.head import Output
from vitrail.runs.assemble import Network
from vitrail.runs.run_network import ASK
from vitrail.tasks.base import Task


class Axis(NamedTuple):
    """How one side of a picture becomes one side of the input: whole numbers kept as scalar tensors."""

    new: Tensor  # pixels of the whole resized side
    corner: Tensor  # where the input begins on it; negative where the input is padded
    size: int  # pixels of the input


class Prepare(nn.Module):
    """(height, width, channels) -> (1, channels, *size): `Preprocess.eval` as matrix products.

    The picture is uint8, or float32 where the network takes raw ones, with NaN where no data are.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        if preprocess.zoom is not None:
            raise SettingError(
                "A model that answers in windows (zoom) is no single graph of a picture. Train without --set zoom to "
                "export, or predict with the run itself."
            )
        self.preprocess = preprocess
        self.register_buffer(
            "mean", preprocess.scale * torch.tensor(preprocess.mean).view(-1, 1, 1), persistent=False
        )
        self.register_buffer(
            "std", preprocess.scale * torch.tensor(preprocess.std).view(-1, 1, 1), persistent=False
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the network's input."""  # (height, width, c) -> (1, c, *size)
        height, width = image.shape[0], image.shape[1]
        # Scalars as tensors: the exporters then compute them from the picture instead of fixing them for the sample.
        tall = torch.full((), height, dtype=torch.int64)
        wide = torch.full((), width, dtype=torch.int64)
        down, across = plan(self.preprocess, tall, wide)
        rows, on_rows = weights(height, tall, down, self.preprocess.interpolation)
        cols, on_cols = weights(width, wide, across, self.preprocess.interpolation)
        pixels = image.permute(2, 0, 1).float()
        on = on_rows[:, None] & on_cols[None]
        if self.preprocess.raw:  # as `vitrail.data.resize` weighs them
            gaps = torch.isnan(pixels)
            share = rows @ ((~gaps).float() @ cols.T)
            on = on & (share >= LEAST_DATA)
            pixels = torch.where(gaps, torch.zeros_like(pixels), pixels)
            resized = rows @ (pixels @ cols.T) / torch.where(on, share, torch.ones_like(share))
        else:
            resized = rows @ (pixels @ cols.T)
        shown = (resized - self.mean) / self.std
        covered: Tensor = shown * on.float()
        return covered[None]


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
        tall = torch.where(by_rows, zero + aim[0], _floor(aim[1] * height, width).clamp(min=aim[0]))
        wide = torch.where(by_rows, _floor(aim[0] * width, height).clamp(min=aim[1]), zero + aim[1])
    return Axis(tall, _corner(tall - rows), rows), Axis(wide, _corner(wide - cols), cols)


def weights(length: int, full: Tensor, axis: Axis, interpolation: Interpolation) -> tuple[Tensor, Tensor]:
    """Return the weights (size, length) of one side's resize, and which of its pixels lie on the picture (size,).

    The same weights as `vitrail.data.resize.taps`, but for every pixel of the side, most of them zero.
    """
    scale = full.float() / axis.new.float()  # original pixels a new one
    at = torch.arange(axis.size) + axis.corner
    middle = (at.float() + 0.5) * scale
    places = torch.arange(length).float() + 0.5
    raw = kernel((places[None] - middle[:, None]) / scale.clamp(min=1.0), interpolation)
    total = raw.sum(1, keepdim=True)
    on = (at >= 0) & (at < axis.new)
    # Rows off the picture may sum to zero; they are masked, but must not divide by it.
    safe = torch.where(total.abs() < 1e-6, torch.ones_like(total), total)
    return torch.where(on[:, None], raw / safe, torch.zeros_like(raw)), on


def spread_onto(
    preprocess: Preprocess, picture: tuple[int, int], rows: int, cols: int
) -> tuple[Tensor, Tensor]:
    """Return the weights that bring a map of the input to a picture: (height, rows) and (width, cols).

    Those of `vitrail.data.view.maps_in_original`; beyond the input the outermost cell answers.
    """
    height, width = picture
    tall = torch.full((), height, dtype=torch.int64)
    wide = torch.full((), width, dtype=torch.int64)
    down, across = plan(preprocess, tall, wide)
    return _linear(height, tall, down, rows), _linear(width, wide, across, cols)


def _linear(length: int, full: Tensor, axis: Axis, cells: int) -> Tensor:
    """Return how much each cell of a side of the input counts at each pixel of the picture: (length, cells)."""
    places = torch.arange(length).double() + 0.5
    at = (places * axis.new / full - axis.corner) * (cells / axis.size) - 0.5
    apart = (at.clamp(0, cells - 1)[:, None] - torch.arange(cells).double()[None]).abs()
    return (1 - apart).clamp(min=0).float()


def _corner(over: Tensor) -> Tensor:
    return torch.where(over > 0, _rounded(over, torch.full_like(over, 2)), _floor(over, 2))


def _floor(a: Tensor, b: Tensor | int) -> Tensor:
    return torch.div(a, b, rounding_mode="floor")


def _rounded(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b rounded, halves to the even number, in whole numbers."""
    low = _floor(a, b)
    twice = 2 * (a - low * b)  # against b: below, at or above the half
    up = (twice > b) | ((twice == b) & (low % 2 == 1))
    return low + up.to(low.dtype)


class Whole(nn.Module):
    """A picture (height, width, channels) -> what people read of it, and the task's raw outputs, in order."""

    def __init__(self, network: Network, task: Task[Any, Any], preprocess: Preprocess) -> None:
        super().__init__()
        self.prepare = Prepare(preprocess)
        self.network, self.task = network, task

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs that `output_names` names."""
        return self.named(self.task.answer(self.network, images_only(self.prepare(image)), ASK), image)

    def named(self, output: Output, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of one picture in order."""
        spread = partial(spread_onto, self.prepare.preprocess, (image.shape[0], image.shape[1]))
        every = {**readable(self.task, output, spread), **output}
        return tuple(every[name][0] for name in output_names(self.task))


class Looking(Whole):
    """The same, and where the class token looks in the last block, (row, col), mean over the heads."""

    def __init__(self, network: Network, task: Task[Any, Any], preprocess: Preprocess) -> None:
        super().__init__(network, task, preprocess)
        spec = network.spec
        if spec.attention != "softmax" or "cls" not in spec.prefix:
            raise SettingError(
                "This network has no class token whose attention could be exported. Leave --attention out."
            )
        self.asks, self.skipped = spec.prefix.index("cls"), len(spec.prefix)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, and the attention of the class token to the patches (row, col)."""
        recorder, inputs = Recorder(), {"images": self.prepare(image)}
        features = self.network.encode(inputs, recorder)
        output = self.network.head(features, inputs)
        looks = recorder.maps[-1].weights[0, :, self.asks, self.skipped :].mean(0)
        return *self.named(output, image), looks.reshape(features.tokens.grid)
