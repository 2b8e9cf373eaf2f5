"""The convolutional stem of hybrid ViTs: a ResNet as in BiT (Kolesnikov et al. 2020, arXiv:1912.11370).

Weights are standardised, norms are group norms of 32 groups with eps 1e-6, and the padding is that of TensorFlow: the
additional pixel of a stride of 2 is at the bottom and the right.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.patch_embedding import check_channels


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad (b, c, row, col) so that windows of `kernel`, `stride` apart, give ceil(side / stride) outputs."""
    pads = [max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in x.shape[-2:]]
    rows, cols = pads
    return F.pad(x, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2), value=value)


class StandardConv(nn.Conv2d):
    """A convolution whose kernels are standardised to mean 0 and deviation 1 (Qiao et al. 2019, arXiv:1903.10520).

    The weight is (w - mean) / (std + 1e-5), with the population standard deviation.
    """

    def __init__(self, fan_in: int, fan_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(fan_in, fan_out, kernel, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, in, row, col) -> (b, out, ceil(row / stride), ceil(col / stride))."""
        std, mean = torch.std_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        weight = (self.weight - mean) / (std + 1e-5)
        return F.conv2d(pad_same(x, self.kernel_size[0], self.stride[0]), weight, stride=self.stride)


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a group norm with the settings of the stem."""
    return nn.GroupNorm(32, channels, eps=1e-6)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions, each with a norm, and a shortcut; ReLU after the sum.

    (b, fan_in, row, col) -> (b, 4·width, row / stride, col / stride). The last norm starts at 0.
    """

    def __init__(self, fan_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = StandardConv(fan_in, width, 1), group_norm(width)
        self.conv2, self.norm2 = StandardConv(width, width, 3, stride), group_norm(width)
        self.conv3, self.norm3 = StandardConv(width, 4 * width, 1), group_norm(4 * width)
        nn.init.zeros_(self.norm3.weight)
        changes = stride != 1 or fan_in != 4 * width
        self.short = StandardConv(fan_in, 4 * width, 1, stride) if changes else None
        self.short_norm = group_norm(4 * width) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(b, fan_in, row, col) -> (b, 4·width, row / stride, col / stride)."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = F.relu(self.norm2(self.conv2(out)))
        out = self.norm3(self.conv3(out))
        if self.short is not None and self.short_norm is not None:
            x = self.short_norm(self.short(x))
        return F.relu(out + x)


class ResNetStem(nn.Module):
    """A 7 x 7 convolution and a pooling, both of stride 2, then a stage of bottlenecks for each of `blocks`.

    (b, channels, height, width) -> (b, `out_channels`, height / `stride`, width / `stride`). Every stage doubles the
    width and, except the first, halves the sides. Without stages the stem is the convolution and the pooling only.
    """

    def __init__(self, width: int, blocks: Sequence[int], channels: int = 3) -> None:
        super().__init__()
        self.root, self.norm = StandardConv(channels, width, 7, 2), group_norm(width)
        self.stages = nn.ModuleList()
        fan_in = width
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            steps = [2 if stage else 1, *[1] * (count - 1)]
            fans = [fan_in, *[4 * inner] * (count - 1)]
            self.stages.append(
                nn.Sequential(*(Bottleneck(f, inner, s) for f, s in zip(fans, steps, strict=True)))
            )
            fan_in = 4 * inner
        self.out_channels, self.stride = fan_in, stem_stride(blocks)

    def forward(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) -> (b, out_channels, height / stride, width / stride)."""
        check_channels(images, self.root.in_channels)
        x = F.relu(self.norm(self.root(images)))
        x = F.max_pool2d(pad_same(x, 3, 2, value=-torch.inf), 3, 2)
        for stage in self.stages:
            x = stage(x)
        return x


def stem_stride(blocks: Sequence[int]) -> int:
    """Return the pixels that a cell of the stem's output spans."""
    return 4 << max(0, len(blocks) - 1)
