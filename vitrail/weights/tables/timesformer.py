"""TimeSformer's layouts: the authors' and transformers'."""

from __future__ import annotations

from dataclasses import replace

from vitrail.weights.rules import Rule, Table
from vitrail.weights.tables import huggingface, timm

OUTER = "model."
"""What the authors' names begin with: their network is wrapped in another one."""

_OVER_TIME = (
    Rule("time.table", "time_embed"),
    Rule("blocks.{i}.time.norm.{p}", "blocks.{i}.temporal_norm1.{p}"),
    Rule("blocks.{i}.time.attention.qkv.{p}", "blocks.{i}.temporal_attn.qkv.{p}"),
    Rule("blocks.{i}.time.attention.out.{p}", "blocks.{i}.temporal_attn.proj.{p}"),
    Rule("blocks.{i}.time.project.{p}", "blocks.{i}.temporal_fc.{p}"),
)


PLAIN = Table("TimeSformer", rules=(*timm.VIT.rules, *_OVER_TIME), head=timm.HEAD[:2])
"""As files are read: the name of the outer module is taken off all names."""


def _wrapped(rules: tuple[Rule, ...], front: str) -> tuple[Rule, ...]:
    return tuple(replace(rule, theirs=f"{front}{rule.theirs}") for rule in rules)


OFFICIAL = replace(PLAIN, rules=_wrapped(PLAIN.rules, OUTER), head=_wrapped(PLAIN.head, OUTER))

SPELLINGS = ((r"^timesformer\.", ""),)
"""From transformers' names to those of the table, without the model's name in front."""

_LAYER = "encoder.layer.{i}"

HUB = Table(
    "Hugging Face TimeSformer",
    rules=(
        *huggingface.EMBEDDINGS,
        Rule("time.table", "embeddings.time_embeddings"),
        *(
            Rule(f"blocks.{{i}}.{ours}.{{p}}", f"{_LAYER}.{theirs}.{{p}}")
            for ours, theirs in (
                ("time.norm", "temporal_layernorm"),
                ("time.attention.qkv", "temporal_attention.attention.qkv"),
                ("time.attention.out", "temporal_attention.output.dense"),
                ("time.project", "temporal_dense"),
                ("norm1", "layernorm_before"),
                ("attention.qkv", "attention.attention.qkv"),
                ("attention.out", "attention.output.dense"),
                ("norm2", "layernorm_after"),
                ("mlp.rise", "intermediate.dense"),
                ("mlp.fall", "output.dense"),
            )
        ),
    ),
    head=huggingface.HEAD[:2],
)

HUB_WRITTEN = replace(HUB, rules=_wrapped(HUB.rules, "timesformer."))
"""As transformers itself writes it."""
