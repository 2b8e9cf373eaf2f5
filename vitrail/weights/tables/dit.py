"""The layouts of DiT's files: its authors', and that of diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vitrail.weights.rules import Rule, Table, stacked

_BLOCK = (
    ("attention.qkv", "attn.qkv"),
    ("attention.out", "attn.proj"),
    ("mlp.rise", "mlp.fc1"),
    ("mlp.fall", "mlp.fc2"),
    ("modulation.linear", "adaLN_modulation.1"),
)

OFFICIAL = Table(
    "official DiT",
    rules=(
        Rule("embed.project.{p}", "x_embedder.proj.{p}"),
        Rule("position.table", "pos_embed"),
        Rule("time.rise.{p}", "t_embedder.mlp.0.{p}"),
        Rule("time.fall.{p}", "t_embedder.mlp.2.{p}"),
        Rule("label.weight", "y_embedder.embedding_table.weight"),
        *(Rule(f"blocks.{{i}}.{ours}.{{p}}", f"blocks.{{i}}.{theirs}.{{p}}") for ours, theirs in _BLOCK),
    ),
    head=(
        Rule("modulation.linear.{p}", "final_layer.adaLN_modulation.1.{p}"),
        Rule("linear.{p}", "final_layer.linear.{p}"),
    ),
)
"""Encoder and final layer."""

PLACES = "pos_embed.pos_embed"
"""The positions, which diffusers computes and most of its files lack."""

EMBEDDERS = "transformer_blocks.{i}.norm1.emb."
"""What is before the names of the layers of time and label, which diffusers repeats in every block."""

_FIRST = EMBEDDERS.format(i=0)
_HUB = "transformer_blocks.{i}"

HUB = Table(
    "diffusers DiT",
    rules=(
        Rule("embed.project.{p}", "pos_embed.proj.{p}"),
        Rule("position.table", PLACES),
        Rule("time.rise.{p}", f"{_FIRST}timestep_embedder.linear_1.{{p}}"),
        Rule("time.fall.{p}", f"{_FIRST}timestep_embedder.linear_2.{{p}}"),
        Rule("label.weight", f"{_FIRST}class_embedder.embedding_table.weight"),
        Rule(
            "blocks.{i}.attention.qkv.{p}",
            tuple(f"{_HUB}.attn1.to_{part}.{{p}}" for part in "qkv"),
            stacked(3),
        ),
        Rule("blocks.{i}.attention.out.{p}", f"{_HUB}.attn1.to_out.0.{{p}}"),
        Rule("blocks.{i}.mlp.rise.{p}", f"{_HUB}.ff.net.0.proj.{{p}}"),
        Rule("blocks.{i}.mlp.fall.{p}", f"{_HUB}.ff.net.2.{{p}}"),
        Rule("blocks.{i}.modulation.linear.{p}", f"{_HUB}.norm1.linear.{{p}}"),
    ),
    head=(Rule("modulation.linear.{p}", "proj_out_1.{p}"), Rule("linear.{p}", "proj_out_2.{p}")),
)
"""Encoder and final layer, with the layers of time and label of the first block."""

WRITTEN: Mapping[str, Table] = MappingProxyType({"official": OFFICIAL, "huggingface": HUB})
"""Name of a layout → its table."""
