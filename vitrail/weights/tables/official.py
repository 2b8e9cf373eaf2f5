"""The layouts of official repositories that are nobody else's: Swin (and timm's), T2T-ViT, SuperViT, VVT."""

from __future__ import annotations

from vitrail.weights.rules import Rule, Table
from vitrail.weights.tables.timm import HEAD, VIT_BLOCKS


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


def t2t(name: str, pairs: tuple[tuple[str, str], ...]) -> Table:
    """Return the table of T2T-ViT, whose two kinds of token attention differ in the names of their parts."""
    ours, theirs = "split.steps.{i}", "tokens_to_token.attention{i+1}"
    return Table(
        name,
        rules=(
            *(Rule(f"{ours}.norm{n}.{{p}}", f"{theirs}.norm{n}.{{p}}") for n in (1, 2)),
            *(Rule(f"{ours}.{a}.{{p}}", f"{theirs}.{b}.{{p}}") for a, b in pairs),
            Rule(f"{ours}.directions", f"{theirs}.w"),
            Rule("split.project.{p}", "tokens_to_token.project.{p}"),
            Rule("prefix.tokens", "cls_token"),
            Rule("position.table", "pos_embed"),
            *VIT_BLOCKS,
        ),
        head=HEAD,
    )


SUPERVIT = Table(
    "official SuperViT",
    rules=(
        Rule("embed.project.{p}", "patch_embed.proj.{p}"),
        *(Rule(f"embed.conv{i}.weight", f"patch_embed.conv{i}.weight") for i in (1, 2, 3)),
        *(Rule(f"embed.norm{i}.{{p}}", f"patch_embed.bn{i}.{{p}}") for i in (1, 2, 3)),
        Rule("prefix.tokens", "cls_token"),
        Rule("positions.{i}.table", "pos_embed_list.{i}"),
        *VIT_BLOCKS,
    ),
    head=(*HEAD[:2], Rule("dense.weight", "aux_head.weight"), Rule("dense.bias", "aux_head.bias")),
)

_VICINITY = (
    ("query", "q_proj"),
    ("key", "k_proj"),
    ("value", "v_proj"),
    ("out", "out_proj"),
    ("squeeze", "se_fc.0"),
    ("excite", "se_fc.2"),
    ("coarse", "sr"),
    ("coarse_norm", "norm"),
)

VVT = Table(
    "official VVT",
    rules=(
        Rule("embeds.{s}.project.{p}", "patch_embed{s+1}.proj.{p}"),
        Rule("embeds.{s}.norm.{p}", "patch_embed{s+1}.norm.{p}"),
        *(Rule(f"stages.{{s}}.{{b}}.norm{n}.{{p}}", f"block{{s+1}}.{{b}}.norm{n}.{{p}}") for n in (1, 2)),
        *(
            Rule(f"stages.{{s}}.{{b}}.attention.{a}.{{p}}", f"block{{s+1}}.{{b}}.attn.{b}.{{p}}")
            for a, b in _VICINITY
        ),
        Rule("stages.{s}.{b}.mlp.rise.{p}", "block{s+1}.{b}.mlp.fc1.{p}"),
        Rule("stages.{s}.{b}.mlp.near.{p}", "block{s+1}.{b}.mlp.dwconv.dwconv.{p}"),
        Rule("stages.{s}.{b}.mlp.fall.{p}", "block{s+1}.{b}.mlp.fc2.{p}"),
        Rule("norms.{s}.{p}", "norm{s+1}.{p}"),
    ),
    head=HEAD[:2],
)

T2T_PERFORMER = t2t(
    "official T2T-ViT",
    (("kqv", "kqv"), ("out", "proj"), ("mlp.rise", "mlp.0"), ("mlp.fall", "mlp.2")),
)
T2T_TRANSFORMER = t2t(
    "official T2T-ViT-t",
    (("qkv", "attn.qkv"), ("out", "attn.proj"), ("mlp.rise", "mlp.fc1"), ("mlp.fall", "mlp.fc2")),
)
