"""Files of DiT: of its authors, who also save an average in training, and of diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isqrt
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from vitrail.core.errors import WeightsError
from vitrail.data.preprocess import HALF
from vitrail.layers.position import grid_sines
from vitrail.models.dit import TASK, DiTConfig
from vitrail.tasks.generate.latents import latent_shape
from vitrail.weights import rules
from vitrail.weights.conventions import Conventions, Preprocessing
from vitrail.weights.files import Opened
from vitrail.weights.infer_config import UNSAID, Peek, want
from vitrail.weights.rules import Table
from vitrail.weights.stated_config import Said, places
from vitrail.weights.tables import dit as tables

if TYPE_CHECKING:
    from vitrail.weights.pretrained import Pretrained

OFFICIAL = frozenset(
    {"x_embedder.proj.weight", "t_embedder.mlp.0.weight", "y_embedder.embedding_table.weight"}
)
HUB = frozenset(
    {"pos_embed.proj.weight", f"{tables.EMBEDDERS.format(i=0)}class_embedder.embedding_table.weight"}
)
"""Tensors of the files of its authors and of diffusers, which together no other network has."""

NEAR = 5e-3
"""Largest difference of a table from sines in float32: the rounding of bfloat16."""

STATED: Mapping[str, Any] = MappingProxyType(
    {"activation_fn": "gelu-approximate", "norm_type": "ada_norm_zero", "attention_bias": True}
)
"""Settings of diffusers with which it computes as DiT."""

VAE = "vae"
"""The folder of the autoencoder beside a network, and the setting of its task that names it."""

EPS = 1e-6
"""What its authors' norms add to the variance."""

FREQUENCIES = (
    "diffusers computes the sines of the time at 128 frequencies 10000^(-i/127); they are 10000^(-i/128) here, as in "
    "its authors' code, with which the published weights were trained"
)

PREPROCESSING = Preprocessing(HALF, HALF, fit="crop", crop_fraction=1.0, interpolation="bicubic")


class Found(NamedTuple):
    """What a file of DiT holds, with the names of `Layout`."""

    table: Table
    infer: Any
    tensors: Mapping[str, Tensor]
    conventions: Conventions
    said: Said
    task: str = TASK
    settings: Mapping[str, Any] = MappingProxyType({})
    own_head: bool = True
    notes: tuple[str, ...] = ()


def look(opened: Opened, tensors: Mapping[str, Tensor]) -> Found | None:
    """Return what a file of DiT holds, or None for another file. WeightsError for one that computes otherwise.

    An autoencoder in a folder `vae` beside it, of whose latents it has the channels, becomes a setting of its task.
    """
    if tensors.keys() >= OFFICIAL:
        conventions = Conventions("official", "tanh", "bicubic", PREPROCESSING)
        found = Found(tables.OFFICIAL, config_of, tensors, conventions, Said())
    elif tensors.keys() >= HUB:
        found = _hub(opened, tensors)
    else:
        return None
    home = opened.path if opened.path.is_dir() else opened.path.parent
    project, rows = (
        rules.peek(found.table, found.tensors, n) for n in ("embed.project.weight", "position.table")
    )
    if not (home / VAE / "config.json").is_file() or project is None or rows is None:
        return found
    shape = latent_shape(home / VAE)
    if project.shape[1] != shape.channels:
        return found
    side = isqrt(rows.shape[1]) * project.shape[-1] * shape.stride
    steps = replace(PREPROCESSING, image=(side, side))
    return found._replace(
        conventions=replace(found.conventions, preprocessing=steps),
        settings={VAE: str((home / VAE).resolve())},
        notes=(
            *found.notes,
            f"it works in latents of the autoencoder in {VAE}/ beside it, for images of {side} px",
        ),
    )


def _hub(opened: Opened, tensors: Mapping[str, Tensor]) -> Found:
    """Return what a file with diffusers' names holds."""
    stated = opened.config if "num_attention_heads" in opened.config else {}
    for name, ours in STATED.items():
        if stated.get(name, ours) != ours:
            raise WeightsError(
                f"{opened.path}: this DiT has {name} = {stated[name]!r}, and ours {ours!r}; it is not read."
            )
    eps = stated.get("norm_eps", EPS)
    line = f"config.json says norm_eps = {eps:g} of a part of the norms; as its authors' code all add {EPS:g} here"
    size = stated.get("sample_size")
    said = Said(
        "config.json",
        stated.get("num_attention_heads"),
        sizes=((size, size),) if isinstance(size, int) else (),
    )
    conventions = Conventions("huggingface", "tanh", "bicubic", PREPROCESSING)
    return Found(
        tables.HUB,
        config_of,
        _of_hub(opened, tensors),
        conventions,
        said,
        notes=(FREQUENCIES, *(line,) * (eps != EPS)),
    )


def config_of(peek: Peek, conventions: Conventions, said: Said) -> DiTConfig:
    """Return the settings of the network."""
    project, label = want(peek, "embed.project.weight"), want(peek, "label.weight")
    width, channels, patch = project.shape[0], project.shape[1], project.shape[3]
    hidden = len(want(peek, "blocks.0.mlp.rise.weight"))
    depth = 0
    while peek(f"blocks.{depth}.modulation.linear.weight") is not None:
        depth += 1
    return DiTConfig(
        image=places(want(peek, "position.table").shape[1], 0, patch, said)[0],
        patch=patch,
        channels=channels,
        width=width,
        depth=depth,
        heads=said.heads if isinstance(said.heads, int) else UNSAID,
        hidden=None if hidden == 4 * width else hidden,
        classes=len(label) - 1,
    )


def without_autoencoder(found: Pretrained) -> Pretrained:
    """Return weights for a file elsewhere, which do not name the folder of an autoencoder here."""
    if VAE not in found.settings or found.preprocessing is None:
        return found
    settings = {name: value for name, value in found.settings.items() if name != VAE}
    return replace(found, settings=settings, preprocessing=replace(found.preprocessing, image=None))


def whole(config: DiTConfig, layout: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as a file of this layout has them.

    Raises:
        WeightsError: diffusers computes other positions than the network has.
    """
    if layout != "huggingface":
        return dict(tensors)
    grid = (config.size[0] // config.patch, config.size[1] // config.patch)
    square = grid[0] == grid[1]
    sines = grid_sines(config.width, grid)[None]
    if not square or not torch.allclose(tensors[tables.PLACES].float(), sines, rtol=0, atol=NEAR):
        raise WeightsError(
            "diffusers computes the positions of a square image, and this network has others; use --to official."
        )
    first = tables.EMBEDDERS.format(i=0)
    repeated = {
        name.replace(first, tables.EMBEDDERS.format(i=block)): tensor.clone()
        for name, tensor in tensors.items()
        if name.startswith(first)
        for block in range(config.depth)
    }
    return {name: tensor for name, tensor in tensors.items() if name != tables.PLACES} | repeated


def _of_hub(opened: Opened, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with one set of the layers of time and label, and with positions.

    Raises:
        WeightsError: the layers of time and label of two blocks differ.
    """
    kept, first = {}, tables.EMBEDDERS.format(i=0)
    for name, tensor in tensors.items():
        front, emb, rest = name.partition(".norm1.emb.")
        if not emb or f"{front}{emb}" == first:
            kept[name] = tensor
        elif first + rest not in tensors or not torch.equal(tensor, tensors[first + rest]):
            raise WeightsError(
                f"{opened.path}: {name} differs from that of the first block, and DiT has one for all; it is not read."
            )
    if tables.PLACES not in kept:
        project, size = tensors["pos_embed.proj.weight"], opened.config.get("sample_size")
        if not isinstance(size, int):
            raise WeightsError(
                f"{opened.path}: there is no config.json beside it that states its sample_size; copy it there."
            )
        side = size // project.shape[-1]
        kept[tables.PLACES] = grid_sines(len(project), (side, side))[None]
    return kept
