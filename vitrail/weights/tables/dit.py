"""The layout of DiT's files: its authors'."""

from __future__ import annotations

from vitrail.weights.rules import Rule, Table

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
