"""timm's layout, which DeiT, MAE and many others share."""

from __future__ import annotations

from vitrail.weights.rules import Rule, Table

VIT_BLOCKS = (
    Rule("blocks.{i}.norm1.{p}", "blocks.{i}.norm1.{p}"),
    Rule("blocks.{i}.attention.qkv.{p}", "blocks.{i}.attn.qkv.{p}"),
    Rule("blocks.{i}.attention.out.{p}", "blocks.{i}.attn.proj.{p}"),
    Rule("blocks.{i}.norm2.{p}", "blocks.{i}.norm2.{p}"),
    Rule("blocks.{i}.mlp.rise.{p}", "blocks.{i}.mlp.fc1.{p}"),
    Rule("blocks.{i}.mlp.fall.{p}", "blocks.{i}.mlp.fc2.{p}"),
    Rule("norm.{p}", "norm.{p}"),
)

HEAD = (
    Rule("linear.weight", "head.weight"),
    Rule("linear.bias", "head.bias"),
    Rule("pre_logits.weight", "pre_logits.fc.weight"),
    Rule("pre_logits.bias", "pre_logits.fc.bias"),
)

ATTENTION_POOL = tuple(
    Rule(f"pool.attention.{ours}", f"attn_pool.{theirs}")
    for ours, theirs in (
        ("probe", "latent"),
        *(
            (f"{ours}.{part}", f"{theirs}.{part}")
            for ours, theirs in (
                ("query", "q"),
                ("key_value", "kv"),
                ("out", "proj"),
                ("norm", "norm"),
                ("mlp.rise", "mlp.fc1"),
                ("mlp.fall", "mlp.fc2"),
            )
            for part in ("weight", "bias")
        ),
    )
)

VIT = Table(
    "timm ViT",
    rules=(
        Rule("embed.project.{p}", "patch_embed.proj.{p}"),
        Rule("prefix.tokens", "cls_token"),
        Rule("position.table", "pos_embed"),
        *VIT_BLOCKS,
    ),
    head=(*HEAD, *ATTENTION_POOL),
)

DINOV2 = Table(
    "timm DINOv2",
    rules=(
        *VIT.rules,
        Rule("registers.tokens", "reg_token"),
        Rule("blocks.{i}.scale1.gamma", "blocks.{i}.ls1.gamma"),
        Rule("blocks.{i}.scale2.gamma", "blocks.{i}.ls2.gamma"),
    ),
    head=HEAD,
)
