"""Patch embeddings: from images to tokens; and the learned prefix tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.tokens import Tokens
from vitrail.layers.weight_init import lecun


class PatchEmbed(nn.Module):
    """Cut an image into square patches and project each (arXiv:2010.11929, the E of eq. 1).

    Patches side by side are computed as one matrix product. With a smaller `step` they overlap and are computed as a
    convolution. The weights are (d, channels, patch, patch) in both cases. Input (b, channels, height, width). The
    patches must cover both sides exactly, because remaining pixels would be ignored silently (SettingError).
    """

    def __init__(
        self, width: int, patch: int, channels: int = 3, *, step: int | None = None, bias: bool = True
    ) -> None:
        super().__init__()
        self.patch, self.step = patch, step or patch
        self.project = nn.Conv2d(channels, width, patch, stride=self.step, bias=bias)
        lecun(self.project)

    def forward(self, images: Tensor) -> Tokens:
        """(b, channels, height, width) -> Tokens of (b, row·col, d), without prefix."""
        check_channels(images, self.project.in_channels)
        check_size(images, self.step, self.patch - self.step)
        if self.step == self.patch:
            return project_patches(images, self.project)
        grid = self.project(images)  # (b, d, row, col)
        return Tokens(grid.flatten(2).transpose(1, 2), (grid.shape[2], grid.shape[3]))


def project_patches(x: Tensor, project: nn.Conv2d) -> Tokens:
    """Return the output of a convolution whose stride is its kernel: (b, c, height, width) -> Tokens (b, row·col, d).

    The convolution itself gives wrong results in bf16 on a CPU with AMX for 4 to 24 channels (torch 2.15), and is
    slower (docs/benchmarks.md). Both sides must be multiples of the kernel.
    """
    ph, pw = project.kernel_size
    patches = rearrange(x, "b c (row ph) (col pw) -> b row col c ph pw", ph=ph, pw=pw)
    kind = x.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind):
        # Rounded while they are copied, without another pass.
        dtype = torch.get_autocast_dtype(kind)
        patches = patches.to(dtype, memory_format=torch.contiguous_format)
    row, col = patches.shape[1:3]
    # The patches of all images are one matrix: the backward pass is faster, and int8 does not quantize it.
    rows = rearrange(patches, "b row col c ph pw -> (b row col) (c ph pw)")
    projected = F.linear(rows, project.weight.flatten(1), project.bias)
    return Tokens(rearrange(projected, "(b n) d -> b n d", n=row * col), (row, col))


class SoftSplit(nn.Module):
    """Cut an image into overlapping squares and flatten each to a token (Yuan et al. 2021, arXiv:2101.11986, §3.1).

    (b, c, height, width) -> Tokens of (b, row·col, c·kernel²). Within a token the channel is the slowest index, the
    column the fastest.
    """

    def __init__(self, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, images: Tensor) -> Tokens:
        """(b, c, height, width) -> Tokens of (b, row·col, c·kernel²)."""
        squares = F.unfold(images, self.kernel, padding=self.padding, stride=self.stride)
        grid = [(side + 2 * self.padding - self.kernel) // self.stride + 1 for side in images.shape[-2:]]
        return Tokens(squares.mT, (grid[0], grid[1]))


class OverlapEmbed(nn.Module):
    """Project overlapping squares, then a norm (PVTv2, Wang et al. 2022, arXiv:2106.13797).

    (b, c, row, col) of any size -> Tokens of (b, ⌈row/stride⌉·⌈col/stride⌉, d). The squares are 2·`stride` - 1 wide,
    and the border is padded with zeros.
    """

    def __init__(self, width: int, stride: int, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, width, 2 * stride - 1, stride, padding=stride - 1)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, images: Tensor) -> Tokens:
        """(b, c, row, col) -> Tokens of (b, ⌈row/stride⌉·⌈col/stride⌉, d)."""
        check_channels(images, self.project.in_channels)
        grid = self.project(images)
        return Tokens(self.norm(grid.flatten(2).mT), (grid.shape[2], grid.shape[3]))


class Prefix(nn.Module):
    """Learned tokens before the patches: class, distillation and register tokens."""

    def __init__(self, width: int, count: int = 1) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.zeros(1, count, width))

    def forward(self, tokens: Tokens) -> Tokens:
        """Tokens of (b, n, d) -> Tokens of (b, count + n, d)."""
        front = self.tokens.expand(tokens.x.shape[0], -1, -1)
        return Tokens(torch.cat([front, tokens.x], 1), tokens.grid, tokens.prefix + front.shape[1])


def check_channels(images: Tensor, channels: int) -> None:
    """Raise a SettingError for a batch that is not (b, channels, height, width) with this number of channels."""
    if images.ndim != 4 or images.shape[1] != channels:
        raise SettingError(
            f"The network takes images as (batch, {channels}, height, width), not {tuple(images.shape)}. "
            "Build it with the number of channels of the images (channels=…)."
        )


def check_size(images: Tensor, stride: int, overlap: int = 0) -> None:
    """Raise a SettingError for images whose sides are not a multiple of `stride` plus the overlap of patches."""
    height, width = images.shape[-2:]
    if (height - overlap) % stride or (width - overlap) % stride:
        less = f" minus the {overlap} of overlap" if overlap else ""
        near = (max(1, round((side - overlap) / stride)) * stride + overlap for side in (height, width))
        raise SettingError(
            f"{height} x {width} pixels{less} are not a multiple of {stride}. The nearest size that is one: "
            f"{' x '.join(map(str, near))}."
        )


def check_windows(images: Tensor, size: tuple[int, int]) -> None:
    """Raise a SettingError for images (b, c, height, width) that are smaller than a window of `size`."""
    if images.shape[2] < size[0] or images.shape[3] < size[1]:
        raise SettingError(
            f"Images of {images.shape[2]} x {images.shape[3]} pixels hold no window of {size[0]} x {size[1]}. "
            "Take larger images."
        )


def windows_of(
    images: Tensor, size: tuple[int, int]
) -> Tensor:  # (b, c, height, width) -> (b·windows, c, *size)
    """Return all windows of `size`, one for each position, in raster order; SettingError for smaller images."""
    check_windows(images, size)
    return images.unfold(2, size[0], 1).unfold(3, size[1], 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)


def side_and_step(patch: int | tuple[int, int]) -> tuple[int, int]:
    """Return the side of a patch and the pixels from one patch to the next; one number means both.

    SettingError if there would be pixels between the patches.
    """
    side, step = patch if isinstance(patch, tuple) else (patch, patch)
    if not 1 <= step <= side:
        raise SettingError(
            f"Patches of {side} pixels, one every {step}, would leave pixels out. "
            f"Use a stride from 1 to {side}."
        )
    return side, step


class Sized:
    """Settings with an `image` size: (height, width), or one side of a square, in pixels."""

    __slots__ = ()

    image: int | tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image, in pixels."""
        return sides(self.image)


def sides(image: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) in pixels of an image size that is given as both, or as one side of a square."""
    return image if isinstance(image, tuple) else (image, image)


def tiled(size: tuple[int, int], side: int, step: int) -> tuple[int, int]:
    """Return the rows and columns of patches of `side` pixels, one every `step`, for an image size in pixels."""
    return (size[0] - side) // step + 1, (size[1] - side) // step + 1


def check_tiles(size: tuple[int, int], side: int, step: int) -> None:
    """Raise a SettingError for an image size that patches of `side` pixels, one every `step`, do not tile."""
    if all(pixels >= side and (pixels - side) % step == 0 for pixels in size):
        return
    wrong = " x ".join(map(str, size))
    if step == side:
        near = " x ".join(str(side * max(1, (pixels + side // 2) // side)) for pixels in size)
        raise SettingError(
            f"Patches of {side} pixels do not tile {wrong} pixels. Use {near}, the nearest size, or other patches."
        )
    near = " x ".join(str(side + step * max(0, (pixels - side) // step)) for pixels in size)
    raise SettingError(
        f"Patches of {side} pixels, one every {step}, do not tile {wrong} pixels. Use {near} or another stride."
    )
