"""EoMT: the layout of transformers, and that of its authors, whose column is timm's. Heads depend on their size."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor

from vitrail.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from vitrail.weights.rules import Op, Rule, Table, stacked
from vitrail.weights.tables import timm

ROWS = Op(lambda theirs: theirs[0][None], lambda ours: (ours[0],))  # (n, d) and (1, n, d)

NO_OBJECT = 0.1
"""Weight of "no object" in the loss of both sources, which their files hold."""

BACKBONE = "network.encoder.backbone."

SPELLINGS = ((r"^(?!network\.|criterion\.)", "network."),)
"""Of the authors' files from which a wrapper's prefix was removed."""

HUB_PARTS = (
    r"upscale_block\.block\.\d+\.conv1\.weight", "attn_mask_probs", "embeddings.position_embeddings.weight"
)  # fmt: skip
OFFICIAL_PARTS = (
    r"network\.upscale\.\d+\.conv1\.weight", "network.attn_mask_probs", f"{BACKBONE}pos_embed"
)  # fmt: skip
"""Names in a file: of each upscaling, as a pattern, of the probabilities of masks, and of the positions."""


def hub(upscales: int, mlp: str) -> Table:
    """Return transformers' table; `mlp` is "gelu", "swiglu" (gate and value in one tensor) or "apart"."""
    return Table(
        "Hugging Face EoMT",
        rules=(
            Rule("embed.project.{p}", "embeddings.patch_embeddings.projection.{p}"),
            Rule("prefix.tokens", "embeddings.cls_token"),
            Rule("registers.tokens", "embeddings.register_tokens"),
            Rule("position.table", "embeddings.position_embeddings.weight", ROWS),
            Rule("blocks.queries", "query.weight", ROWS),
            Rule("norm.{p}", "layernorm.{p}"),
            *(Rule(f"blocks.{{i}}.norm{n}.{{p}}", f"layers.{{i}}.norm{n}.{{p}}") for n in (1, 2)),
            *(Rule(f"blocks.{{i}}.scale{n}.gamma", f"layers.{{i}}.layer_scale{n}.lambda1") for n in (1, 2)),
            Rule(
                "blocks.{i}.attention.qkv.{p}",
                tuple(f"layers.{{i}}.attention.{part}_proj.{{p}}" for part in "qkv"),
                stacked(3),
            ),
            Rule("blocks.{i}.attention.out.{p}", "layers.{i}.attention.out_proj.{p}"),
            *_HUB_MLPS[mlp],
        ),
        head=tuple(
            _head(
                upscales,
                "class_predictor",
                ("mask_head.fc1", "mask_head.fc2", "mask_head.fc3"),
                ("upscale_block.block.{}", "layernorm2d"),
            )
        ),
        ignored=("attn_mask_probs", "criterion.empty_weight"),
    )


def official(upscales: int) -> Table:
    """Return the table of the authors' files."""
    return Table(
        "official EoMT",
        rules=(
            Rule("blocks.queries", "network.q.weight", ROWS),
            *(Rule(rule.ours, f"{BACKBONE}{rule.theirs}") for rule in timm.DINOV2.rules),
        ),
        head=tuple(
            _head(
                upscales,
                "network.class_head",
                ("network.mask_head.0", "network.mask_head.2", "network.mask_head.4"),
                ("network.upscale.{}", "norm"),
            )
        ),
        ignored=(
            "network.attn_mask_probs",
            "network.encoder.pixel_mean",
            "network.encoder.pixel_std",
            "criterion.empty_weight",
        ),
    )


_HUB_MLPS = {
    "gelu": (
        Rule("blocks.{i}.mlp.rise.{p}", "layers.{i}.mlp.fc1.{p}"),
        Rule("blocks.{i}.mlp.fall.{p}", "layers.{i}.mlp.fc2.{p}"),
    ),
    "swiglu": (
        Rule("blocks.{i}.mlp.rise.{p}", "layers.{i}.mlp.weights_in.{p}"),
        Rule("blocks.{i}.mlp.fall.{p}", "layers.{i}.mlp.weights_out.{p}"),
    ),
    "apart": (
        Rule(
            "blocks.{i}.mlp.rise.{p}",
            ("layers.{i}.mlp.gate_proj.{p}", "layers.{i}.mlp.up_proj.{p}"),
            stacked(2),
        ),
        Rule("blocks.{i}.mlp.fall.{p}", "layers.{i}.mlp.down_proj.{p}"),
    ),
}
"""The MLP's tensors; transformers had gate and value in one until 5.x."""


def mlp_of(names: Collection[str]) -> str:
    """Return which MLP transformers' files have, by their names."""
    if "layers.0.mlp.gate_proj.weight" in names:
        return "apart"
    return "swiglu" if "layers.0.mlp.weights_in.weight" in names else "gelu"


def _head(upscales: int, classes: str, mask: tuple[str, str, str], scale: tuple[str, str]) -> Iterable[Rule]:
    for part in ("weight", "bias"):
        yield Rule(f"classes.{part}", f"{classes}.{part}")
        for turn, theirs in enumerate(mask):
            yield Rule(f"mask.{turn}.{part}", f"{theirs}.{part}")
    for turn in range(upscales):
        front, norm = scale[0].format(turn), scale[1]
        yield Rule(f"upscale.{turn}.mix.weight", f"{front}.conv2.weight")
        for part in ("weight", "bias"):
            yield Rule(f"upscale.{turn}.expand.{part}", f"{front}.conv1.{part}")
            yield Rule(f"upscale.{turn}.norm.{part}", f"{front}.{norm}.{part}")


def constants(config: Any, layout: str, classes: int) -> dict[str, Tensor]:
    """Return tensors of a layout that are not weights: without masks in its attention a network answers as ours."""
    weight = torch.ones(classes + 1)
    weight[-1] = NO_OBJECT
    probabilities = torch.zeros(config.query_blocks)
    found = {"criterion.empty_weight": weight}
    if layout == "official":
        mean, std = (torch.tensor(one).view(1, -1, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD))
        return {
            **found,
            "network.attn_mask_probs": probabilities,
            "network.encoder.pixel_mean": mean,
            "network.encoder.pixel_std": std,
        }
    registers = (
        {"embeddings.register_tokens": torch.zeros(1, 0, config.width)} if not config.registers else {}
    )
    return {**found, "attn_mask_probs": probabilities, **registers}
