"""Files of MAE: whether they hold an encoder, a classifier or a network for pretraining, and its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.core.errors import WeightsError
from vitrail.layers.patch_embedding import tiled
from vitrail.layers.position import grid_sines
from vitrail.models.mae import PRESETS, TASK, MAEConfig
from vitrail.weights import hub_folder, infer_config, rules
from vitrail.weights.conventions import HUGGINGFACE, MAE, Conventions, of_hub
from vitrail.weights.files import Opened
from vitrail.weights.infer_config import Peek
from vitrail.weights.read_request import CLASSIFY, CONVERTED
from vitrail.weights.rules import Table
from vitrail.weights.stated_config import Said
from vitrail.weights.tables import mae as tables

PLAIN = frozenset({"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"})
"""Tensors of the authors' files, and of many others."""

OTHERS = ("dist_token", "reg_token", "register_tokens", "blocks.0.ls1.gamma", "blocks.0.gamma_1")
"""Tensors that MAE has not."""

HUB = "vit_mae"
"""transformers' `model_type`."""

NEAR = 5e-3
"""Largest difference of a table from sines in float32: the rounding of bfloat16."""

PLAIN_IMAGE = 224
"""The largest side of an image, in pixels, at which its authors evaluate the centre of a larger one."""

PROBE_EPS = 1e-6
"""What the batch norm of the authors' linear probes adds to the variance."""


class Found(NamedTuple):
    """What a file of MAE holds, with the names of `Layout`."""

    table: Table
    infer: Callable[[Peek, Conventions, Said], Any]
    tensors: Mapping[str, Tensor]
    conventions: Conventions
    said: Said
    task: str = CLASSIFY
    settings: Mapping[str, Any] = MappingProxyType({})
    own_head: bool = False
    notes: tuple[str, ...] = ()


class _Names(NamedTuple):
    """Names in a layout: of the positions, and of the decoder's projection, first MLP layers and positions."""

    positions: str
    embed: str
    rise: str
    places: str


_OFFICIAL = _Names("pos_embed", "decoder_embed.weight", "decoder_blocks.{}.mlp.fc1.weight", tables.PLACES)
_HUB = _Names(
    "embeddings.position_embeddings",
    "decoder.decoder_embed.weight",
    "decoder.decoder_layers.{}.intermediate.dense.weight",
    tables.HUB_PLACES,
)


def look(opened: Opened, tensors: Mapping[str, Tensor], family: str | None) -> Found | None:
    """Return what a file of MAE holds, or None for another file, or one that the user calls another network.

    Its signs are the decoder, the norm after the mean, the batch norm of a probe, or positions that are sines: with
    learned ones it is a ViT.
    """
    if family not in (None, "mae"):
        return None
    if tensors.keys() >= PLAIN and not any(name in tensors for name in OTHERS):
        signs = ("decoder_pred.weight", "fc_norm.weight", "head.0.running_mean")
        if family or any(name in tensors for name in signs) or grid_of_sines(tensors["pos_embed"]):
            return _official(opened, tensors)
        return None
    stated = hub_folder.hub_type(opened.config)
    renamed = rules.rename_keys(tensors, tables.HUB_SPELLINGS)
    if stated not in (None, HUB) or "embeddings.patch_embeddings.projection.weight" not in renamed:
        return None
    table = renamed.get("embeddings.position_embeddings")
    if family or stated or _HUB.embed in renamed or (table is not None and grid_of_sines(table)):
        return _hub(opened, renamed)
    return None


def _official(opened: Opened, tensors: Mapping[str, Tensor]) -> Found:
    """Return what a file with the authors' names holds."""
    patch = tensors["patch_embed.proj.weight"].shape[-1]
    grid = grid_of_sines(tensors["pos_embed"])
    said = Said(sizes=((grid[0] * patch, grid[1] * patch),)) if grid else Said()
    side = max(said.sizes[0]) if grid else patch * int(tensors["pos_embed"].shape[1] ** 0.5)
    preprocessing = MAE.preprocessing
    if preprocessing is not None and side > PLAIN_IMAGE:
        preprocessing = replace(preprocessing, crop_fraction=1.0)
    conventions = replace(MAE, preprocessing=preprocessing)
    folded = _folded(tensors)
    line = "the batch norm before its classifier is folded into it"
    found = Found(
        tables.ENCODER, config_of, folded, conventions, said, notes=(line,) * (folded is not tensors)
    )
    normal = "visualize" not in opened.path.name
    how = f"its decoder predicts {'normalised' if normal else 'plain'} pixels, as the authors' files of this name do"
    notes = () if CONVERTED in opened.metadata else (how,)
    return _with_decoder(found, _OFFICIAL, tables.OFFICIAL, {"normalise": normal}, notes)


def _hub(opened: Opened, tensors: Mapping[str, Tensor]) -> Found:
    """Return what a file with transformers' names holds."""
    config = hub_folder.whole(opened.config)
    said = hub_folder.said_of(config) if opened.config else Said()
    conventions = replace(HUGGINGFACE, preprocessing=of_hub(opened.preprocessing))
    share = config.get("mask_ratio", 0.0)
    settings = {
        "normalise": bool(config.get("norm_pix_loss", False)),
        **({"mask": share} if 0 < share < 1 else {}),
    }
    return _with_decoder(
        Found(tables.HUB_ENCODER, config_of, tensors, conventions, said), _HUB, tables.HUB, settings, ()
    )


def _with_decoder(
    found: Found, names: _Names, table: Table, settings: Mapping[str, Any], notes: tuple[str, ...]
) -> Found:
    """Return what was found with the decoder, or without it and why, if it is none of ours."""
    tensors = found.tensors
    if names.embed not in tensors:
        return found
    if why := _unlike(tensors, names):
        return found._replace(notes=(why,))
    size = (len(tensors[names.embed]), len(list(_rises(tensors, names))))
    infer = partial(config_of, decoder=size)
    return found._replace(table=table, infer=infer, task=TASK, settings=settings, own_head=True, notes=notes)


def config_of(
    peek: Peek, conventions: Conventions, said: Said, *, decoder: tuple[int, int] | None = None
) -> MAEConfig:
    """Return the settings of the network, with a decoder of this width and depth, if the file has one.

    WeightsError for a decoder whose heads are neither stated nor those of a published width.
    """
    c = infer_config.vit(peek, conventions, said)
    if c.position != "1d" or not c.prefix:
        raise WeightsError("MAE has a class token with a place among its positions, and the file has not.")
    found = MAEConfig(
        image=c.image,
        patch=c.patch if isinstance(c.patch, int) else c.patch[0],
        channels=c.channels,
        width=c.width,
        depth=c.depth,
        heads=c.heads,
        hidden=c.hidden,
        pooled=peek("fc_norm.weight") is not None,
    )
    if decoder is None:  # that of the preset, for another pretraining
        alike = (preset.decoder for preset in PRESETS.values() if _same(preset, found))
        return replace(found, decoder=next(alike, found.decoder))
    heads = said.decoder_heads or _heads(decoder)
    if heads is None:
        raise WeightsError(
            f"the file does not say how many heads share the {decoder[0]} numbers of its decoder. Say it: --network "
            "decoder_heads=N, or take the encoder alone: --model vit"
        )
    return replace(found, decoder=(*decoder, heads))


def heads_line(config: Any, task: str, said: Said) -> str | None:
    """Return a note if the heads of a decoder were assumed."""
    if config.family != "mae" or task != TASK or said.decoder_heads is not None:
        return None
    return (
        f"{config.decoder[2]} heads of its decoder, as the preset of its width has: the file does not say (else: "
        "--network decoder_heads=N)"
    )


def pool_of(config: Any, head: Mapping[str, Tensor], own: bool) -> str | None:
    """Return what the classifier of a file reads: without a norm after the mean it is the class token.

    None for the network's own pooling, and for files of `own` making, whose header states it.
    """
    return None if own or config.pooled or "linear.weight" not in head else "cls"


def whole(config: MAEConfig, layout: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return encoder and decoder as a file of this layout has them, with the positions of the decoder."""
    hub = layout == "huggingface"
    grid = tiled(config.size, config.patch, config.patch)
    places = F.pad(grid_sines(config.decoder[0], grid), (0, 0, 1, 0))[None]
    front = {name: "vit." if hub and not name.startswith("decoder.") else "" for name in tensors}
    named = {f"{front[name]}{name}": tensor for name, tensor in tensors.items()}
    return {**named, tables.HUB_PLACES if hub else tables.PLACES: places}


def grid_of_sines(table: Tensor) -> tuple[int, int] | None:
    """Return the grid of a table of sines (1, 1 + row·col, d) with zeros for the class token, or None for another."""
    if table.ndim != 3 or table.shape[1] < 2 or table.shape[2] % 4 or float(table[0, 0].abs().max()) > NEAR:
        return None
    places, count = table[0, 1:].float(), table.shape[1] - 1
    grids = [(row, count // row) for row in range(1, count + 1) if count % row == 0]
    for grid in sorted(grids, key=lambda one: abs(one[0] - one[1])):
        if torch.allclose(places, grid_sines(table.shape[2], grid), rtol=0, atol=NEAR):
            return grid
    return None


def _unlike(tensors: Mapping[str, Tensor], names: _Names) -> str | None:
    """Return why the decoder of a file is none of ours, or None."""
    width = len(tensors[names.embed])
    hidden = {len(rise) for rise in _rises(tensors, names)}
    if hidden - {4 * width}:
        return f"its decoder has MLPs of {min(hidden)} numbers, not {4 * width}, and is left aside"
    if names.places in tensors and not grid_of_sines(tensors[names.places]):
        return "the positions of its decoder are not sines of column and row, and it is left aside"
    return None


def _rises(tensors: Mapping[str, Tensor], names: _Names) -> Iterator[Tensor]:
    """Yield the first MLP layer of each block of the decoder."""
    block = 0
    while (name := names.rise.format(block)) in tensors:
        yield tensors[name]
        block += 1


def _heads(decoder: tuple[int, int]) -> int | None:
    """Return the heads of the presets' decoders of this width and depth."""
    return next((preset.decoder[2] for preset in PRESETS.values() if preset.decoder[:2] == decoder), None)


def _same(a: MAEConfig, b: MAEConfig) -> bool:
    return (a.width, a.depth, a.patch) == (b.width, b.depth, b.patch)


def _folded(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the tensors with the batch norm of a linear probe, which has no factors, folded into its classifier."""
    probe = ("head.0.running_mean", "head.0.running_var", "head.1.weight", "head.1.bias")
    if not all(name in tensors for name in probe) or "head.0.weight" in tensors:
        return tensors
    mean, var, weight, bias = (tensors[name].double() for name in probe)
    scaled = weight * (var + PROBE_EPS).rsqrt()
    head = {"head.weight": scaled.float(), "head.bias": (bias - scaled @ mean).float()}
    return {n: t for n, t in tensors.items() if n not in (*probe, "head.0.num_batches_tracked")} | head
