"""From the shapes of tensors to the settings of the network that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isqrt
from typing import Any, Literal

from torch import Tensor

from vitrail.core import catalog
from vitrail.core.errors import WeightsError
from vitrail.models.create import presets_of
from vitrail.models.deit import DeiTConfig
from vitrail.models.dinov2 import DinoV2Config
from vitrail.models.mixer import MixerConfig
from vitrail.models.supervit import SuperViTConfig
from vitrail.models.swin import SwinConfig
from vitrail.models.t2t import T2TConfig
from vitrail.models.vit import ViTConfig
from vitrail.models.vvt import PRESETS as VVTS
from vitrail.models.vvt import VVTConfig
from vitrail.weights.conventions import Conventions

Peek = Callable[[str], Tensor | None]
"""Our name of a tensor → the tensor as the source has it, or None."""

COMPARED = (
    "patch",
    "width",
    "depth",
    "heads",
    "hidden",
    "stem",
    "mlp",
    "registers",
    "prefix",
    "depths",
    "window",
    "form",
    "sides",
    "widths",
    "reduce",
    "shrink",
    "places",
    "tokens",
    "token_width",
    "layer_scale",
)
"""The settings that make one network another; size, channels and conventions do not."""


def vit(peek: Peek, conventions: Conventions, heads: int | None) -> ViTConfig:
    """Return the settings of a ViT's weights; `heads` where the source states them."""
    channels, width, patch, hidden = _sizes(peek)
    stem, stride = _stem(peek)
    prefix = _have(peek, "prefix.tokens")
    root = peek("stem.root.weight")
    side, position = _grid(_want(peek, "position.table").shape[1], 1 if prefix else 0)
    return ViTConfig(
        image=side * patch * stride,
        patch=patch,
        channels=channels if root is None else root.shape[1],
        width=width,
        depth=_count(peek, "blocks.{}.norm1.weight"),
        heads=heads or _heads(width),
        hidden=None if hidden == 4 * width else hidden,
        gelu=conventions.gelu,
        prefix=("cls",) if prefix else (),
        position=position,
        resize=conventions.resize,
        stem=stem,
    )


def dinov2(peek: Peek, conventions: Conventions, heads: int | None) -> DinoV2Config:
    """Return the settings of a DINOv2's weights; `heads` where the source states them."""
    channels, width, patch, rise = _sizes(peek)
    hidden = _want(peek, "blocks.0.mlp.fall.weight").shape[1]
    registers = peek("registers.tokens")
    side, position = _grid(_want(peek, "position.table").shape[1], 1)
    return DinoV2Config(
        image=side * patch,
        patch=patch,
        channels=channels,
        width=width,
        depth=_count(peek, "blocks.{}.norm1.weight"),
        heads=heads or _heads(width),
        hidden=None if hidden == 4 * width else hidden,
        mlp="gelu" if rise == hidden else "swiglu",
        registers=0 if registers is None else registers.shape[1],
        position=position,
        # As its authors trained it, whoever keeps the file.
        resize="bicubic" if registers is None else "bicubic_antialias",
    )


def deit(peek: Peek, conventions: Conventions, heads: int | None) -> DeiTConfig:
    """Return the settings of a DeiT's weights; its positions are stretched as its authors do."""
    channels, width, patch, _ = _sizes(peek)
    names: tuple[Literal["cls", "dist"], ...] = ("cls", "dist")
    prefix = names[: _want(peek, "prefix.tokens").shape[1]]
    side, position = _grid(_want(peek, "position.table").shape[1], len(prefix))
    return DeiTConfig(
        image=side * patch,
        patch=patch,
        channels=channels,
        width=width,
        depth=_count(peek, "blocks.{}.norm1.weight"),
        heads=heads or _heads(width),
        prefix=prefix,
        position=position,
        layer_scale=1e-4 if _have(peek, "blocks.0.scale1.gamma") else None,
    )


def layer_scaled(peek: Peek, conventions: Conventions, heads: int | None) -> DeiTConfig | DinoV2Config:
    """Return the settings of a ViT with learned factors: without registers and a place for cls it is DeiT III."""
    _, position = _grid(_want(peek, "position.table").shape[1], 1)
    third = position == "1d_patches" and not _have(peek, "registers.tokens")
    return (deit if third else dinov2)(peek, conventions, heads)


def swin(peek: Peek, conventions: Conventions, heads: int | None) -> SwinConfig:
    """Return the settings of a Swin's weights; the image is the least that its windows tile."""
    project = _want(peek, "embed.project.weight")
    width, channels, patch = project.shape[0], project.shape[1], project.shape[3]
    depths: list[int] = []
    while count := _count(peek, f"pyramid.stages.{len(depths)}.{{}}.norm1.weight"):
        depths.append(count)
    tables = [_want(peek, f"pyramid.stages.{s}.0.attention.bias.table") for s in range(len(depths))]
    windows = [(isqrt(len(table)) + 1) // 2 for table in tables]
    absolute = peek("position.table")
    return SwinConfig(
        image=windows[-1] * patch << len(depths) - 1
        if absolute is None
        else isqrt(absolute.shape[1]) * patch,
        patch=patch,
        channels=channels,
        width=width,
        depths=tuple(depths),
        heads=tuple(table.shape[1] for table in tables),
        window=windows[0],
        hidden=len(_want(peek, "pyramid.stages.0.0.mlp.rise.weight")) / width,
        position="relative" if absolute is None else "absolute",
    )


def t2t(peek: Peek, conventions: Conventions, heads: int | None) -> T2TConfig:
    """Return the settings of a T2T-ViT's weights; `heads` where the source states them."""
    project, fall = _want(peek, "split.project.weight"), _want(peek, "split.steps.0.mlp.fall.weight")
    width, unfolded = len(project), _want(peek, "split.steps.0.norm1.weight")
    side, _ = _grid(_want(peek, "position.table").shape[1], 1)
    return T2TConfig(
        image=16 * side,
        channels=len(unfolded) // 49,
        tokens="performer" if _have(peek, "split.steps.0.directions") else "transformer",
        token_width=len(fall),
        width=width,
        depth=_count(peek, "blocks.{}.norm1.weight"),
        heads=heads or _heads(width),
        hidden=len(_want(peek, "blocks.0.mlp.rise.weight")) / width,
    )


def supervit(peek: Peek, conventions: Conventions, heads: int | None) -> SuperViTConfig:
    """Return the settings of a SuperViT's weights; with a stem of convolutions it is the form on LV-ViT."""
    project = _want(peek, "embed.project.weight")
    stem = peek("embed.conv1.weight")
    tables: list[int] = []
    while (table := peek(f"positions.{len(tables)}.table")) is not None:
        tables.append(_grid(table.shape[1], 1)[0])
    width, patch = project.shape[0], project.shape[3] * (1 if stem is None else 2)
    return SuperViTConfig(
        image=tables[-1] * patch,
        patch=patch,
        channels=(project if stem is None else stem).shape[1],
        width=width,
        depth=_count(peek, "blocks.{}.norm1.weight"),
        heads=heads or _heads(width),
        hidden=len(_want(peek, "blocks.0.mlp.rise.weight")) / width,
        form="deit" if stem is None else "lvvit",
        sides=tuple(tables),
        norm_eps=1e-6 if stem is None else 1e-5,
    )


def vvt(peek: Peek, conventions: Conventions, heads: int | None) -> VVTConfig:
    """Return the settings of a VVT's weights; the heads, which no tensor tells, are those of our presets."""
    stages = range(_count(peek, "embeds.{}.project.weight"))
    widths = tuple(len(_want(peek, f"norms.{s}.weight")) for s in stages)
    known = next((preset.heads for preset in VVTS.values() if preset.widths == widths), None)
    if known is None:
        raise WeightsError(
            f"The file does not say how many heads share widths of {widths}; name the network."
        )
    first = [f"stages.{s}.0" for s in stages]
    coarse = [peek(f"{block}.attention.coarse.weight") for block in first]
    return VVTConfig(
        channels=_want(peek, "embeds.0.project.weight").shape[1],
        widths=widths,
        depths=tuple(_count(peek, f"stages.{s}.{{}}.norm1.weight") for s in stages),
        heads=known,
        hidden=tuple(
            len(_want(peek, f"{b}.mlp.rise.weight")) // w for b, w in zip(first, widths, strict=True)
        ),
        reduce=tuple(
            w // len(_want(peek, f"{b}.attention.query.weight")) for b, w in zip(first, widths, strict=True)
        ),
        shrink=tuple(1 if kernel is None else kernel.shape[3] for kernel in coarse),
    )


def mixer(peek: Peek, conventions: Conventions, heads: int | None) -> MixerConfig:
    """Return the settings of a Mixer's weights, made for a square picture."""
    channels, width, patch = _embedding(peek)
    places = _want(peek, "blocks.0.over_places.rise.weight")
    side, _ = _grid(places.shape[1], 0)
    return MixerConfig(
        image=side * patch,
        patch=patch,
        channels=channels,
        width=width,
        depth=_count(peek, "blocks.{}.norm1.weight"),
        places=len(places),
        hidden=len(_want(peek, "blocks.0.over_channels.rise.weight")),
        gelu=conventions.gelu,
    )


def preset_of(config: Any) -> str | None:
    """Return our preset that differs from these settings in size, channels and conventions at most."""
    return next((name for name, preset in _family(config) if same_network(config, preset)), None)


def same_network(a: Any, b: Any) -> bool:
    """Tell whether two settings differ in size, channels and conventions at most."""
    return a.family == b.family and _differences(a, b) == 0


def nearest_preset(config: Any) -> str:
    """Return our preset of the same family that differs in the fewest settings."""
    return min(_family(config), key=lambda row: _differences(config, row[1]))[0]


def _family(config: Any) -> Iterable[tuple[str, Any]]:
    return presets_of(config.family).items() if config.family in catalog.PRESETS else ()


def _differences(a: Any, b: Any) -> int:
    return sum(_compared(a, name) != _compared(b, name) for name in COMPARED)


def _compared(config: Any, name: str) -> Any:
    value = getattr(config, name, None)
    if name == "layer_scale":  # where factors start is of no matter to a file; that there are any is
        return value is not None
    # How closely patches stand changes no weight; the side of a patch does.
    return value[0] if name == "patch" and isinstance(value, tuple) else value


def _sizes(peek: Peek) -> tuple[int, int, int, int]:
    """Return channels, width, patch and the rows of the MLP's first layer."""
    return *_embedding(peek), len(_want(peek, "blocks.0.mlp.rise.weight"))


def _embedding(peek: Peek) -> tuple[int, int, int]:
    """Return channels, width and patch."""
    project = _want(peek, "embed.project.weight")
    if project.ndim != 4 or project.shape[2] != project.shape[3]:
        raise WeightsError(
            f"Patches of shape {tuple(project.shape)} are not square; no network here has such."
        )
    return project.shape[1], project.shape[0], project.shape[3]


def _stem(peek: Peek) -> tuple[tuple[int, ...], int]:
    root = peek("stem.root.weight")
    if root is None:
        return (), 1
    blocks: list[int] = []
    while count := _count(peek, f"stem.stages.{len(blocks)}.{{}}.conv1.weight"):
        blocks.append(count)
    return (len(root), *blocks), 4 << max(0, len(blocks) - 1)


def _grid(rows: int, prefix: int) -> tuple[int, Any]:
    """Return the side of a square grid, and whether the table has rows for the prefix."""
    if prefix and isqrt(rows - prefix) ** 2 == rows - prefix:
        return isqrt(rows - prefix), "1d"
    if isqrt(rows) ** 2 == rows:
        return isqrt(rows), "1d_patches" if prefix else "1d"
    raise WeightsError(f"A position table of {rows} rows fits no square grid; name the network (model=…).")


def _heads(width: int) -> int:
    if width % 64:
        raise WeightsError(
            f"The file does not say how many heads share a width of {width}; name the network."
        )
    return width // 64  # every published ViT without another statement has heads of 64


def _count(peek: Peek, pattern: str) -> int:
    count = 0
    while _have(peek, pattern.format(count)):
        count += 1
    return count


def _have(peek: Peek, name: str) -> bool:
    return peek(name) is not None


def _want(peek: Peek, name: str) -> Tensor:
    tensor = peek(name)
    if tensor is None:
        raise WeightsError(f"The file lacks what we call {name}; it belongs to another kind of network.")
    return tensor
