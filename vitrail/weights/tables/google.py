"""Google's `.npz` files: google-research/vision_transformer (2020 and AugReg) and big_vision.

Kernels are (row, col, in, out) and (in, out); those of an attention are (width, head, e) and (head, e,
width).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor

from vitrail.weights.rules import TRANSPOSE, Op, Rule, Table, rename_keys

SPELLINGS = (
    (r"^opt/target/", ""),
    (r"^params/img/", ""),
    (r"^params/", ""),
    (r"^pos_embedding$", "Transformer/posembed_input/pos_embedding"),
    (r"(encoderblock_\d+)/LayerNorm_1/", r"\1/LayerNorm_2/"),
    (r"(encoderblock_\d+)/MultiHeadDotProductAttention_0/", r"\1/MultiHeadDotProductAttention_1/"),
    (r"(encoderblock_\d+)/MlpBlock_0/", r"\1/MlpBlock_3/"),
)
"""From all names of Flax, before and after linen, to the oldest, which all readers support."""

KERNEL = Op(lambda theirs: theirs[0].permute(3, 2, 0, 1), lambda ours: (ours.permute(2, 3, 1, 0),))
NORM = Op(lambda theirs: theirs[0].flatten(), lambda ours: (ours.view(1, 1, 1, -1),))


def heads_in(heads: int, parts: int) -> Op:
    """Return the op for `parts` kernels of (width, head, e) that we stack as (parts · head · e, width)."""
    return Op(
        lambda theirs: torch.cat([rearrange(kernel, "w h e -> (h e) w") for kernel in theirs]),
        lambda ours: tuple(rearrange(ours, "(p h e) w -> p w h e", p=parts, h=heads)),
    )


def heads_bias(heads: int, parts: int) -> Op:
    """Return the op for `parts` biases of (head, e) that we stack as (parts · head · e)."""
    return Op(
        lambda theirs: torch.cat([bias.flatten() for bias in theirs]),
        lambda ours: tuple(rearrange(ours, "(p h e) -> p h e", p=parts, h=heads)),
    )


def heads_out(heads: int) -> Op:
    """Return the op for a kernel of (head, e, width) that we keep as (width, head · e)."""
    return Op(
        lambda theirs: rearrange(theirs[0], "h e w -> w (h e)"),
        lambda ours: (rearrange(ours, "w (h e) -> h e w", h=heads),),
    )


def attention(ours: str, theirs: str, heads: int) -> tuple[Rule, ...]:
    """Return the rules of a self-attention."""
    names = [f"{theirs}/{name}" for name in ("query", "key", "value")]
    return (
        Rule(f"{ours}.qkv.weight", tuple(f"{name}/kernel" for name in names), heads_in(heads, 3)),
        Rule(f"{ours}.qkv.bias", tuple(f"{name}/bias" for name in names), heads_bias(heads, 3)),
        Rule(f"{ours}.out.weight", f"{theirs}/out/kernel", heads_out(heads)),
        Rule(f"{ours}.out.bias", f"{theirs}/out/bias"),
    )


def norm(ours: str, theirs: str) -> tuple[Rule, ...]:
    """Return the rules of a layer norm."""
    return Rule(f"{ours}.weight", f"{theirs}/scale"), Rule(f"{ours}.bias", f"{theirs}/bias")


def dense(ours: str, theirs: str) -> tuple[Rule, ...]:
    """Return the rules of a linear layer."""
    return Rule(f"{ours}.weight", f"{theirs}/kernel", TRANSPOSE), Rule(f"{ours}.bias", f"{theirs}/bias")


def attention_pool(heads: int) -> tuple[Rule, ...]:
    """Return the rules of big_vision's MAP head."""
    ours, theirs = "pool.attention", "MAPHead_0/MultiHeadDotProductAttention_0"
    pair = (f"{theirs}/key", f"{theirs}/value")
    return (
        Rule(f"{ours}.probe", "MAPHead_0/probe"),
        Rule(f"{ours}.query.weight", f"{theirs}/query/kernel", heads_in(heads, 1)),
        Rule(f"{ours}.query.bias", f"{theirs}/query/bias", heads_bias(heads, 1)),
        Rule(f"{ours}.key_value.weight", tuple(f"{name}/kernel" for name in pair), heads_in(heads, 2)),
        Rule(f"{ours}.key_value.bias", tuple(f"{name}/bias" for name in pair), heads_bias(heads, 2)),
        Rule(f"{ours}.out.weight", f"{theirs}/out/kernel", heads_out(heads)),
        Rule(f"{ours}.out.bias", f"{theirs}/out/bias"),
        *norm(f"{ours}.norm", "MAPHead_0/LayerNorm_0"),
        *dense(f"{ours}.mlp.rise", "MAPHead_0/MlpBlock_0/Dense_0"),
        *dense(f"{ours}.mlp.fall", "MAPHead_0/MlpBlock_0/Dense_1"),
    )


def stem() -> tuple[Rule, ...]:
    """Return the rules of a hybrid's ResNet, whose stages and units Google counts from 1."""
    rules = [
        Rule("stem.root.weight", "conv_root/kernel", KERNEL),
        Rule("stem.norm.weight", "gn_root/scale", NORM),
        Rule("stem.norm.bias", "gn_root/bias", NORM),
    ]
    ours, theirs = "stem.stages.{s}.{u}", "block{s+1}/unit{u+1}"
    for part, other in (("1", "1"), ("2", "2"), ("3", "3"), ("", "_proj")):
        conv, gn = (f"conv{part}", f"norm{part}") if part else ("short", "short_norm")
        rules += [
            Rule(f"{ours}.{conv}.weight", f"{theirs}/conv{other}/kernel", KERNEL),
            Rule(f"{ours}.{gn}.weight", f"{theirs}/gn{other}/scale", NORM),
            Rule(f"{ours}.{gn}.bias", f"{theirs}/gn{other}/bias", NORM),
        ]
    return tuple(rules)


def vit(heads: int = 1) -> Table:
    """Return the table of ViT and its hybrids; reading needs no heads, writing does."""
    block = "Transformer/encoderblock_{i}"
    return Table(
        "Google ViT",
        rules=(
            *stem(),
            Rule("embed.project.weight", "embedding/kernel", KERNEL),
            Rule("embed.project.bias", "embedding/bias"),
            Rule("prefix.tokens", "cls"),
            Rule("position.table", "Transformer/posembed_input/pos_embedding"),
            *norm("blocks.{i}.norm1", f"{block}/LayerNorm_0"),
            *attention("blocks.{i}.attention", f"{block}/MultiHeadDotProductAttention_1", heads),
            *norm("blocks.{i}.norm2", f"{block}/LayerNorm_2"),
            *dense("blocks.{i}.mlp.rise", f"{block}/MlpBlock_3/Dense_0"),
            *dense("blocks.{i}.mlp.fall", f"{block}/MlpBlock_3/Dense_1"),
            *norm("norm", "Transformer/encoder_norm"),
        ),
        head=(*dense("pre_logits", "pre_logits"), *dense("linear", "head"), *attention_pool(heads)),
        ignored=("opt/state/*",),
    )


def _mixer_mlp(ours: str, theirs: str) -> tuple[Rule, ...]:
    return (*dense(f"{ours}.rise", f"{theirs}/Dense_0"), *dense(f"{ours}.fall", f"{theirs}/Dense_1"))


MIXER = Table(
    "Google Mixer",
    rules=(
        Rule("embed.project.weight", "stem/kernel", KERNEL),
        Rule("embed.project.bias", "stem/bias"),
        *norm("blocks.{i}.norm1", "MixerBlock_{i}/LayerNorm_0"),
        *_mixer_mlp("blocks.{i}.over_places", "MixerBlock_{i}/token_mixing"),
        *norm("blocks.{i}.norm2", "MixerBlock_{i}/LayerNorm_1"),
        *_mixer_mlp("blocks.{i}.over_channels", "MixerBlock_{i}/channel_mixing"),
        *norm("norm", "pre_head_layer_norm"),
    ),
    head=dense("linear", "head"),
    ignored=("opt/state/*",),
)


def renamed(source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors in the oldest spelling; blocks stacked by a scan are taken apart."""
    named = rename_keys(source, SPELLINGS)
    out: dict[str, Tensor] = {}
    for name, tensor in named.items():
        head, mark, tail = name.partition("Transformer/encoderblock/")
        if not mark:
            out[name] = tensor
            continue
        out.update({f"{head}Transformer/encoderblock_{i}/{tail}": part for i, part in enumerate(tensor)})
    # After splitting, the blocks may still have linen's numbers.
    return rename_keys(out, SPELLINGS)
