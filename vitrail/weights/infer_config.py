"""Infer the settings of a network from the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import isqrt
from typing import Any, Literal, NamedTuple

from torch import Tensor

from vitrail.core import catalog
from vitrail.core.errors import WeightsError
from vitrail.layers.patch_embedding import sides
from vitrail.models.deit import DeiTConfig
from vitrail.models.dinov2 import DinoV2Config
from vitrail.models.factory import presets_of
from vitrail.models.mixer import MixerConfig
from vitrail.models.supervit import SuperViTConfig
from vitrail.models.swin import SwinConfig
from vitrail.models.t2t import T2TConfig
from vitrail.models.vit import ViTConfig
from vitrail.models.vvt import VVTConfig
from vitrail.weights.conventions import Conventions
from vitrail.weights.rules import LacksError
from vitrail.weights.stated_config import Said, places

Peek = Callable[[str], Tensor | None]
"""Our name of a tensor → the tensor of the source, or None."""

OF_HEADS = ("vit", "deit", "dinov2", "mae", "clip", "t2t", "supervit", "vvt", "eomt", "timesformer", "dit")
"""Families whose number of heads does not follow from the tensors."""

MOST_HEADS = 10
"""Largest number of possible head numbers in an error message."""

UNSAID = 1
"""Placeholder for an unknown number of heads, until `with_heads`."""

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
    "windows",
    "taps",
    "layers",
    "planes",
    "dilated",
    "query_blocks",
    "head_dim",
    "kernel",
    "as_published",
    "attention",
)
"""The settings that define a network; size, channels and conventions do not."""


def vit(peek: Peek, conventions: Conventions, said: Said) -> ViTConfig:
    """Return the settings of a ViT's weights."""
    channels, width, patch, hidden = _sizes(peek)
    stem, stride = _stem(peek)
    prefix = _have(peek, "prefix.tokens")
    root = peek("stem.root.weight")
    image, position = places(want(peek, "position.table").shape[1], 1 if prefix else 0, patch * stride, said)
    return ViTConfig(
        image=image,
        patch=patch,
        channels=channels if root is None else root.shape[1],
        width=width,
        depth=_count(peek, "blocks.{}.norm1.weight"),
        heads=said.heads if isinstance(said.heads, int) else UNSAID,
        hidden=None if hidden == 4 * width else hidden,
        gelu=said.gelu or conventions.gelu,
        prefix=("cls",) if prefix else (),
        position=position,
        resize=conventions.resize,
        stem=stem,
    )


def dinov2(peek: Peek, conventions: Conventions, said: Said) -> DinoV2Config:
    """Return the settings of a DINOv2's weights."""
    channels, width, patch, rise = _sizes(peek)
    hidden = want(peek, "blocks.0.mlp.fall.weight").shape[1]
    registers = peek("registers.tokens")
    rows = want(peek, "position.table").shape[1]
    image, position = places(rows, 1, patch, said, apart=registers is not None)
    return DinoV2Config(
        image=image,
        patch=patch,
        channels=channels,
        width=width,
        depth=_count(peek, "blocks.{}.norm1.weight"),
        heads=said.heads if isinstance(said.heads, int) else UNSAID,
        hidden=None if hidden == 4 * width else hidden,
        mlp="gelu" if rise == hidden else "swiglu",
        registers=0 if registers is None else registers.shape[1],
        position=position,
        # The convention of its authors, for files of any source.
        resize="bicubic" if registers is None else "bicubic_antialias",
    )


def deit(peek: Peek, conventions: Conventions, said: Said) -> DeiTConfig:
    """Return the settings of a DeiT's weights; its positions are interpolated as by its authors."""
    channels, width, patch, hidden = _sizes(peek)
    names: tuple[Literal["cls", "dist"], ...] = ("cls", "dist")
    prefix = names[: want(peek, "prefix.tokens").shape[1]]
    scaled = _have(peek, "blocks.0.scale1.gamma")
    rows = want(peek, "position.table").shape[1]
    image, position = places(rows, len(prefix), patch, said, apart=scaled)
    return DeiTConfig(
        image=image,
        patch=patch,
        channels=channels,
        width=width,
        depth=_count(peek, "blocks.{}.norm1.weight"),
        heads=said.heads if isinstance(said.heads, int) else UNSAID,
        hidden=None if hidden == 4 * width else hidden,
        prefix=prefix,
        position=position,
        layer_scale=1e-4 if scaled else None,
    )


def layer_scaled(peek: Peek, conventions: Conventions, said: Said) -> DeiTConfig | DinoV2Config:
    """Return the settings of a ViT with layer scale: without registers and a position of cls it is DeiT III."""
    rows, patch = want(peek, "position.table").shape[1], _embedding(peek)[2]
    _, position = places(rows, 1, patch, said, apart=True)
    third = position == "1d_patches" and not _have(peek, "registers.tokens")
    return (deit if third else dinov2)(peek, conventions, said)


def swin(peek: Peek, conventions: Conventions, said: Said) -> SwinConfig:
    """Return the settings of a Swin's weights; the image size is stated, or the smallest that its windows tile."""
    project = want(peek, "embed.project.weight")
    width, channels, patch = project.shape[0], project.shape[1], project.shape[3]
    depths: list[int] = []
    while count := _count(peek, f"pyramid.stages.{len(depths)}.{{}}.norm1.weight"):
        depths.append(count)
    tables = [want(peek, f"pyramid.stages.{s}.0.attention.bias.table") for s in range(len(depths))]
    windows = [(isqrt(len(table)) + 1) // 2 for table in tables]
    absolute = peek("position.table")
    found = SwinConfig(
        image=windows[-1] * patch << len(depths) - 1
        if absolute is None
        else places(absolute.shape[1], 0, patch, said)[0],
        patch=patch,
        channels=channels,
        width=width,
        depths=tuple(depths),
        heads=tuple(table.shape[1] for table in tables),
        window=windows[0],
        hidden=len(want(peek, "pyramid.stages.0.0.mlp.rise.weight")) / width,
        position="relative" if absolute is None else "absolute",
    )
    return next((fit for size in _sizes_of(said) if (fit := _made_for(found, size, windows))), found)


def _made_for(found: SwinConfig, size: tuple[int, int], windows: list[int]) -> SwinConfig | None:
    """Return the settings for another image, where its stages have windows of these sides; else None."""
    if not found.tiles(size):
        return None
    fit = replace(found, image=size[0] if size[0] == size[1] else size)
    return fit if [fit.window_of(stage) for stage in range(len(windows))] == windows else None


def _sizes_of(said: Said) -> tuple[tuple[int, int], ...]:
    return (said.image, *said.sizes) if said.image else said.sizes


def t2t(peek: Peek, conventions: Conventions, said: Said) -> T2TConfig:
    """Return the settings of a T2T-ViT's weights."""
    project, fall = want(peek, "split.project.weight"), want(peek, "split.steps.0.mlp.fall.weight")
    width, unfolded = len(project), want(peek, "split.steps.0.norm1.weight")
    image, _ = places(want(peek, "position.table").shape[1], 1, 16, said)
    return T2TConfig(
        image=image,
        channels=len(unfolded) // 49,
        tokens="performer" if _have(peek, "split.steps.0.directions") else "transformer",
        token_width=len(fall),
        width=width,
        depth=_count(peek, "blocks.{}.norm1.weight"),
        heads=said.heads if isinstance(said.heads, int) else UNSAID,
        hidden=len(want(peek, "blocks.0.mlp.rise.weight")) / width,
    )


def supervit(peek: Peek, conventions: Conventions, said: Said) -> SuperViTConfig:
    """Return the settings of a SuperViT's weights; with a stem of convolutions it is the form on LV-ViT."""
    project = want(peek, "embed.project.weight")
    stem = peek("embed.conv1.weight")
    tables: list[int] = []
    while (table := peek(f"positions.{len(tables)}.table")) is not None:
        tables.append(sides(places(table.shape[1], 1, 1, Said())[0])[0])
    width, patch = project.shape[0], project.shape[3] * (1 if stem is None else 2)
    return SuperViTConfig(
        image=tables[-1] * patch,
        patch=patch,
        channels=(project if stem is None else stem).shape[1],
        width=width,
        depth=_count(peek, "blocks.{}.norm1.weight"),
        heads=said.heads if isinstance(said.heads, int) else UNSAID,
        hidden=len(want(peek, "blocks.0.mlp.rise.weight")) / width,
        form="deit" if stem is None else "lvvit",
        sides=tuple(tables),
        norm_eps=1e-6 if stem is None else 1e-5,
    )


def vvt(peek: Peek, conventions: Conventions, said: Said) -> VVTConfig:
    """Return the settings of a VVT's weights."""
    stages = range(_count(peek, "embeds.{}.project.weight"))
    widths = tuple(len(want(peek, f"norms.{s}.weight")) for s in stages)
    first = [f"stages.{s}.0" for s in stages]
    coarse = [peek(f"{block}.attention.coarse.weight") for block in first]
    return VVTConfig(
        channels=want(peek, "embeds.0.project.weight").shape[1],
        widths=widths,
        depths=tuple(_count(peek, f"stages.{s}.{{}}.norm1.weight") for s in stages),
        heads=said.heads if isinstance(said.heads, tuple) else (UNSAID,) * len(widths),
        hidden=tuple(
            len(want(peek, f"{b}.mlp.rise.weight")) // w for b, w in zip(first, widths, strict=True)
        ),
        reduce=tuple(
            w // len(want(peek, f"{b}.attention.query.weight")) for b, w in zip(first, widths, strict=True)
        ),
        shrink=tuple(1 if kernel is None else kernel.shape[3] for kernel in coarse),
    )


def mixer(peek: Peek, conventions: Conventions, said: Said) -> MixerConfig:
    """Return the settings of a Mixer's weights."""
    channels, width, patch = _embedding(peek)
    over = want(peek, "blocks.0.over_places.rise.weight")
    image, _ = places(over.shape[1], 0, patch, said)
    return MixerConfig(
        image=image,
        patch=patch,
        channels=channels,
        width=width,
        depth=_count(peek, "blocks.{}.norm1.weight"),
        places=len(over),
        hidden=len(want(peek, "blocks.0.over_channels.rise.weight")),
        gelu=said.gelu or conventions.gelu,
    )


class Headed(NamedTuple):
    """Settings with their heads, which do not follow from tensors.

    `line` is a note if they come from the only similar preset; without a statement and such a preset there is an
    `error`.
    """

    config: Any
    line: str | None = None
    error: WeightsError | None = None


def with_heads(config: Any, said: Said, what: str) -> Headed:
    """Return the settings of a file, `what`, with their heads."""
    if config.family not in OF_HEADS or said.heads is not None:
        return Headed(config)
    alike = {p.heads: name for name, p in _family(config) if _differences(config, p, ("heads",)) == 0}
    if len(alike) == 1:
        ((heads, name),) = alike.items()
        line = f"{_word(heads)} heads, as {name} has: the file does not say (else: --network heads=N)"
        return Headed(replace(config, heads=heads), line)
    widths = getattr(config, "widths", None) or (config.width,)
    several = "=[" + ",".join("N" * len(widths)) + "]" if len(widths) > 1 else "=N"
    error = WeightsError(
        f"{what} does not say how many heads share {_shared(widths)}. Say it: --network heads{several} (vitrail "
        "train, convert and weights add), or name the network where it has a name: --model vit_s16"
    )
    return Headed(config, error=error)


def _word(heads: Any) -> str:
    return str(heads).replace("(", "[").replace(")", "]").replace(" ", "")


def _shared(widths: Sequence[int]) -> str:
    """Return a width, or several, with the numbers of heads that divide it."""
    if len(widths) > 1:
        return f"widths of {', '.join(map(str, widths))}"
    heads = [number for number in range(1, widths[0] + 1) if widths[0] % number == 0]
    some = heads if len(heads) <= MOST_HEADS else heads[:MOST_HEADS]
    return f"a width of {widths[0]} ({', '.join(map(str, some))}{' …' if len(heads) > len(some) else ''} divide it)"


def preset_of(config: Any) -> str | None:
    """Return our preset that differs from these settings at most in size, channels and conventions.

    Of several, it is one with the same size, and for clips as many frames.
    """
    same = [
        (_input(preset) != _input(config), name)
        for name, preset in _family(config)
        if same_network(config, preset)
    ]
    return min(same, key=lambda one: one[0])[1] if same else None


def _input(config: Any) -> tuple[Any, ...]:
    return config.size, getattr(config, "frames", 0)


def same_network(a: Any, b: Any) -> bool:
    """Return whether two settings differ at most in size, channels and conventions."""
    return a.family == b.family and _differences(a, b) == 0


def nearest_preset(config: Any) -> str:
    """Return our preset of the same family that differs in the fewest settings."""
    return min(_family(config), key=lambda row: _differences(config, row[1]))[0]


def _family(config: Any) -> Iterable[tuple[str, Any]]:
    return presets_of(config.family).items() if config.family in catalog.PRESETS else ()


def _differences(a: Any, b: Any, apart_from: tuple[str, ...] = ()) -> int:
    return sum(_compared(a, name) != _compared(b, name) for name in COMPARED if name not in apart_from)


def _compared(config: Any, name: str) -> Any:
    value = getattr(config, name, None)
    if (
        name == "layer_scale"
    ):  # the initial value does not matter for a file, only whether there is layer scale
        return value is not None
    # The stride of patches changes no weight; the size of a patch does.
    return value[0] if name == "patch" and isinstance(value, tuple) else value


def _sizes(peek: Peek) -> tuple[int, int, int, int]:
    """Return channels, width, patch and the rows of the MLP's first layer."""
    return *_embedding(peek), len(want(peek, "blocks.0.mlp.rise.weight"))


def _embedding(peek: Peek) -> tuple[int, int, int]:
    """Return channels, width and patch."""
    project = want(peek, "embed.project.weight")
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


def _count(peek: Peek, pattern: str) -> int:
    count = 0
    while _have(peek, pattern.format(count)):
        count += 1
    return count


def _have(peek: Peek, name: str) -> bool:
    return peek(name) is not None


def want(peek: Peek, name: str) -> Tensor:
    """Return one of our tensors; WeightsError if the file lacks it."""
    tensor = peek(name)
    if tensor is None:
        raise LacksError(name)
    return tensor
