"""TimeSformer's layouts: the authors' and transformers'."""

from __future__ import annotations

from dataclasses import replace

from vitrail.weights.rules import Rule, Table
from vitrail.weights.tables import timm

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


def _wrapped(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return tuple(replace(rule, theirs=f"{OUTER}{rule.theirs}") for rule in rules)


OFFICIAL = replace(PLAIN, rules=_wrapped(PLAIN.rules), head=_wrapped(PLAIN.head))
