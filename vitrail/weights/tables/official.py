"""The layouts of official repositories that are nobody else's: Swin (and timm's), T2T-ViT."""

from __future__ import annotations

from vitrail.weights.rules import Rule, Table


def swin(name: str, merge: str, classifier: str) -> Table:
    """Return the table of Swin; authors and timm differ in where a merge stands and what the classifier is called."""
    ours, theirs = "pyramid.stages.{s}.{b}", "layers.{s}.blocks.{b}"
    pairs = (
        ("norm1", "norm1"),
        ("attention.qkv", "attn.qkv"),
        ("attention.out", "attn.proj"),
        ("norm2", "norm2"),
        ("mlp.rise", "mlp.fc1"),
        ("mlp.fall", "mlp.fc2"),
    )
    return Table(
        name,
        rules=(
            Rule("embed.project.{p}", "patch_embed.proj.{p}"),
            Rule("embed_norm.{p}", "patch_embed.norm.{p}"),
            Rule("position.table", "absolute_pos_embed"),
            *(Rule(f"{ours}.{a}.{{p}}", f"{theirs}.{b}.{{p}}") for a, b in pairs),
            Rule(f"{ours}.attention.bias.table", f"{theirs}.attn.relative_position_bias_table"),
            Rule("pyramid.merges.{s}.norm.{p}", f"layers.{merge}.downsample.norm.{{p}}"),
            Rule("pyramid.merges.{s}.reduce.weight", f"layers.{merge}.downsample.reduction.weight"),
            Rule("norm.{p}", "norm.{p}"),
        ),
        head=(
            Rule("linear.weight", f"{classifier}.weight"),
            Rule("linear.bias", f"{classifier}.bias"),
        ),
        # Both are made again from the window's size.
        ignored=("*.relative_position_index", "*.attn_mask"),
    )


SWIN = swin("official Swin", "{s}", "head")
SWIN_TIMM = swin("timm Swin", "{s+1}", "head.fc")
