"""The layouts of MAE: the authors', which is timm's with a decoder, and transformers'."""

from __future__ import annotations

from dataclasses import replace

from vitrail.weights.rules import Rule, Table, stacked
from vitrail.weights.tables import huggingface, timm

_BLOCK = (
    ("norm1", "norm1"),
    ("attention.qkv", "attn.qkv"),
    ("attention.out", "attn.proj"),
    ("norm2", "norm2"),
    ("mlp.rise", "mlp.fc1"),
    ("mlp.fall", "mlp.fc2"),
)

DECODER = (
    Rule("embed.{p}", "decoder_embed.{p}"),
    Rule("mask", "mask_token"),
    *(Rule(f"blocks.{{i}}.{ours}.{{p}}", f"decoder_blocks.{{i}}.{theirs}.{{p}}") for ours, theirs in _BLOCK),
    Rule("norm.{p}", "decoder_norm.{p}"),
    Rule("predict.{p}", "decoder_pred.{p}"),
)

PLACES = "decoder_pos_embed"
"""The authors' positions of the decoder, which are computed here."""

OFFICIAL = Table("official MAE", rules=timm.VIT.rules, head=DECODER, ignored=(PLACES,))
"""Encoder and decoder."""

ENCODER = Table(
    "official MAE",
    rules=(*timm.VIT.rules, Rule("fc_norm.{p}", "fc_norm.{p}")),
    head=timm.HEAD[:2],
    ignored=("mask_token", "decoder_*"),
)
"""The encoder, and a classifier if there is one; the norm stands before or after the mean of the patches."""

_LAYER = "decoder.decoder_layers.{i}"

HUB_DECODER = (
    Rule("embed.{p}", "decoder.decoder_embed.{p}"),
    Rule("mask", "decoder.mask_token"),
    Rule(
        "blocks.{i}.attention.qkv.{p}",
        tuple(f"{_LAYER}.attention.attention.{part}.{{p}}" for part in ("query", "key", "value")),
        stacked(3),
    ),
    *(
        Rule(f"blocks.{{i}}.{ours}.{{p}}", f"{_LAYER}.{theirs}.{{p}}")
        for ours, theirs in (
            ("attention.out", "attention.output.dense"),
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
            ("mlp.rise", "intermediate.dense"),
            ("mlp.fall", "output.dense"),
        )
    ),
    Rule("norm.{p}", "decoder.decoder_norm.{p}"),
    Rule("predict.{p}", "decoder.decoder_pred.{p}"),
)

HUB_PLACES = "decoder.decoder_pos_embed"
"""transformers' name of the positions of the decoder."""

HUB = Table("Hugging Face ViTMAE", rules=huggingface.VIT.rules, head=HUB_DECODER, ignored=(HUB_PLACES,))
"""Encoder and decoder, without the `vit.` that stands before the names of the encoder in files of both."""

HUB_ENCODER = replace(huggingface.VIT, name="Hugging Face ViTMAE")
"""The encoder, and a classifier if there is one."""

HUB_SPELLINGS = (
    (r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."),
    (r"^(decoder\.decoder_layers\.\d+)\.attention\.([qkv])_proj\.", r"\1.attention.attention.\2_proj."),
    (r"^(decoder\.decoder_layers\.\d+)\.attention\.o_proj\.", r"\1.attention.output.dense."),
    (r"^(decoder\.decoder_layers\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"^(decoder\.decoder_layers\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
    *huggingface.SPELLINGS,
)
"""From every spelling seen to the one of the hub's files."""
