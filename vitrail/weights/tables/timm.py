"""timm's layout, which the official DeiT, MAE and many others share."""

from __future__ import annotations

from vitrail.weights.rules import Rule, Table, as_matrix, side_by_side

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
    ignored=("mask_token", "decoder_*"),  # of MAE's pretraining alone
)

MIXER = Table(
    "timm Mixer",
    rules=(
        Rule("embed.project.{p}", "stem.proj.{p}"),
        *(Rule(f"blocks.{{i}}.norm{n}.{{p}}", f"blocks.{{i}}.norm{n}.{{p}}") for n in (1, 2)),
        *(
            Rule(f"blocks.{{i}}.{ours}.{{p}}", f"blocks.{{i}}.{theirs}.{{p}}")
            for ours, theirs in (
                ("over_places.rise", "mlp_tokens.fc1"),
                ("over_places.fall", "mlp_tokens.fc2"),
                ("over_channels.rise", "mlp_channels.fc1"),
                ("over_channels.fall", "mlp_channels.fc2"),
            )
        ),
        Rule("norm.{p}", "norm.{p}"),
    ),
    head=(Rule("linear.weight", "head.weight"), Rule("linear.bias", "head.bias")),
)

LAYER_SCALE = (
    Rule("blocks.{i}.scale1.gamma", "blocks.{i}.ls1.gamma"),
    Rule("blocks.{i}.scale2.gamma", "blocks.{i}.ls2.gamma"),
)

DINOV2 = Table(
    "timm DINOv2",
    rules=(*VIT.rules, Rule("registers.tokens", "reg_token"), *LAYER_SCALE),
    head=VIT.head,
    ignored=("mask_token",),  # of the pretraining alone
)

OFFICIAL_SPELLINGS = (
    (r"\.gamma_(\d)$", r".ls\1.gamma"),
    (r"^register_tokens$", "reg_token"),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
"""From the names of the official repositories, DeiT III's and DINOv2's, to timm's; a place of the class token stays."""

DEIT = Table("timm DeiT", rules=(*VIT.rules, *LAYER_SCALE), head=VIT.head)

DEIT_DISTILLED = Table(
    "timm distilled DeiT",
    rules=(
        *(rule for rule in VIT.rules if rule.ours != "prefix.tokens"),
        Rule("prefix.tokens", ("cls_token", "dist_token"), side_by_side(2)),
    ),
    head=(*HEAD, Rule("dist.weight", "head_dist.weight"), Rule("dist.bias", "head_dist.bias")),
)


def hybrid(stem: str, name: str) -> Table:
    """Return the table of a hybrid whose ResNet's root stands under `stem`."""
    ours, theirs = "stem.stages.{s}.{u}", "patch_embed.backbone.stages.{s}.blocks.{u}"
    parts = ("conv1", "conv2", "conv3", "norm1", "norm2", "norm3")
    return Table(
        name,
        rules=(
            Rule("stem.root.weight", f"{stem}.conv.weight"),
            Rule("stem.norm.{p}", f"{stem}.norm.{{p}}"),
            *(Rule(f"{ours}.{part}.{{p}}", f"{theirs}.{part}.{{p}}") for part in parts),
            Rule(f"{ours}.short.weight", f"{theirs}.downsample.conv.weight"),
            Rule(f"{ours}.short_norm.{{p}}", f"{theirs}.downsample.norm.{{p}}"),
            *VIT.rules,
        ),
        head=HEAD,
    )


HYBRID = hybrid("patch_embed.backbone.stem", "timm hybrid ViT")
HYBRID_ROOT = hybrid("patch_embed.backbone", "timm R + ViT")


def network(classifier: str, convolution: bool = False) -> Table:
    """Return the table of any network of timm, whose classifier has this name, and may be a convolution (BiT)."""
    return Table(
        "timm",
        rules=(Rule("net.{rest}", "{rest}"),),
        head=(
            Rule("linear.weight", f"{classifier}.weight", as_matrix(convolution)),
            Rule("linear.bias", f"{classifier}.bias"),
        ),
    )
