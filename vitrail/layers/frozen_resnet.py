"""A ResNet whose batch norm never changes, as detectors fine-tune it (He et al. 2016, arXiv:1512.03385).

Names of tensors are torchvision's. The stride of a block is that of its 3 x 3 convolution ("v1.5").
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 4
"""Width of a block's output, in widths of its 3 x 3 convolution."""

STEM = 64
"""Channels of the first convolution."""


class FrozenNorm(nn.Module):
    """Batch norm with fixed statistics and factors, which are buffers: (b, c, row, col) -> (b, c, row, col)."""

    EPS = 1e-5

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((width,), value))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, row, col) -> (b, c, row, col)."""
        scale = self.weight * (self.running_var + self.EPS).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions with a shortcut: (b, c, row, col) -> (b, 4·width, row', col')."""

    def __init__(self, given: int, width: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        out = EXPANSION * width
        self.conv1, self.bn1 = nn.Conv2d(given, width, 1, bias=False), FrozenNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = FrozenNorm(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), FrozenNorm(out)
        same = stride == 1 and given == out
        self.downsample = (
            None if same else nn.Sequential(nn.Conv2d(given, out, 1, stride, bias=False), FrozenNorm(out))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, row, col) -> (b, 4·width, row', col')."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


class FrozenResNet(nn.Module):
    """(b, channels, height, width) -> the maps of four stages, at strides 4, 8, 16 and 32.

    With `dilated` the last stage keeps stride 16, and its convolutions reach twice as far. The stem and the first stage
    are not trained, as in detectors since Fast R-CNN.
    """

    def __init__(
        self, layers: tuple[int, ...], planes: tuple[int, ...], *, channels: int = 3, dilated: bool = False
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, STEM, 7, 2, 3, bias=False), FrozenNorm(STEM)
        given = STEM
        for turn, (count, width) in enumerate(zip(layers, planes, strict=True)):
            last = dilated and turn == len(layers) - 1
            stride = 2 if turn and not last else 1
            blocks = [Bottleneck(given, width, stride)]
            given = EXPANSION * width
            blocks += [Bottleneck(given, width, dilation=2 if last else 1) for _ in range(count - 1)]
            self.add_module(f"layer{turn + 1}", nn.Sequential(*blocks))
        self.stages = len(layers)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        for frozen in (self.conv1, self.get_submodule("layer1")):
            frozen.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(b, channels, height, width) -> the maps of the stages, (b, d_i, row_i, col_i), fine first."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, 1)
        maps = []
        for turn in range(self.stages):
            x = self.get_submodule(f"layer{turn + 1}")(x)
            maps.append(x)
        return maps
