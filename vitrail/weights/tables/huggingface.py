"""The layout of model files on the Hugging Face hub; the names in transformers' memory are different."""

from __future__ import annotations

from dataclasses import replace

from vitrail.weights.rules import Rule, Table, side_by_side, stacked

SPELLINGS = (
    (r"^(vit|vit_mae|vit_msn|deit|dinov2|dinov2_with_registers)\.", ""),
    (r"^layers\.(\d+)\.attention\.([qkv])_proj\.", r"encoder.layer.\1.attention.attention.\2_proj."),
    (r"^layers\.(\d+)\.attention\.o_proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"^encoder\.layer\.(\d+)\.attention\.([qkv])_proj\.", r"encoder.layer.\1.attention.attention.\2_proj."),
    (r"^encoder\.layer\.(\d+)\.attention\.o_proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"^layers\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
    (r"^layers\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.output.dense."),
    (r"^layers\.", "encoder.layer."),
    (r"\.mlp\.down_proj\.", ".mlp.weights_out."),
)
"""From every spelling seen to the one of the hub's files, without the model's name in front."""

EMBEDDINGS = (
    Rule("embed.project.{p}", "embeddings.patch_embeddings.projection.{p}"),
    Rule("prefix.tokens", "embeddings.cls_token"),
    Rule("position.table", "embeddings.position_embeddings"),
    Rule("norm.{p}", "layernorm.{p}"),
)

ATTENTION = (
    Rule(
        "blocks.{i}.attention.qkv.{p}",
        (
            "encoder.layer.{i}.attention.attention.query.{p}",
            "encoder.layer.{i}.attention.attention.key.{p}",
            "encoder.layer.{i}.attention.attention.value.{p}",
        ),
        stacked(3),
    ),
    Rule("blocks.{i}.attention.out.{p}", "encoder.layer.{i}.attention.output.dense.{p}"),
)

HEAD = (
    Rule("linear.weight", "classifier.weight"),
    Rule("linear.bias", "classifier.bias"),
    Rule("pre_logits.weight", "pooler.dense.weight"),
    Rule("pre_logits.bias", "pooler.dense.bias"),
)

VIT = Table(
    "Hugging Face ViT",
    rules=(
        *EMBEDDINGS,
        *ATTENTION,
        Rule("blocks.{i}.norm1.{p}", "encoder.layer.{i}.layernorm_before.{p}"),
        Rule("blocks.{i}.norm2.{p}", "encoder.layer.{i}.layernorm_after.{p}"),
        Rule("blocks.{i}.mlp.rise.{p}", "encoder.layer.{i}.intermediate.dense.{p}"),
        Rule("blocks.{i}.mlp.fall.{p}", "encoder.layer.{i}.output.dense.{p}"),
    ),
    head=HEAD,
    ignored=("embeddings.mask_token", "decoder.*"),  # used only in pretraining, like MAE's decoder
)

DINOV2 = Table(
    "Hugging Face DINOv2",
    rules=(
        *EMBEDDINGS,
        *ATTENTION,
        Rule("registers.tokens", "embeddings.register_tokens"),
        *(Rule(f"blocks.{{i}}.norm{n}.{{p}}", f"encoder.layer.{{i}}.norm{n}.{{p}}") for n in (1, 2)),
        *(
            Rule(f"blocks.{{i}}.scale{n}.gamma", f"encoder.layer.{{i}}.layer_scale{n}.lambda1")
            for n in (1, 2)
        ),
        Rule("blocks.{i}.mlp.rise.{p}", "encoder.layer.{i}.mlp.fc1.{p}"),
        Rule("blocks.{i}.mlp.fall.{p}", "encoder.layer.{i}.mlp.fc2.{p}"),
    ),
    head=HEAD,
    ignored=("embeddings.mask_token", "decoder.*"),  # used only in pretraining, like MAE's decoder
)

DINOV2_SWIGLU = replace(
    DINOV2,
    rules=(
        *(rule for rule in DINOV2.rules if ".mlp." not in rule.ours),
        Rule("blocks.{i}.mlp.rise.{p}", "encoder.layer.{i}.mlp.weights_in.{p}"),
        Rule("blocks.{i}.mlp.fall.{p}", "encoder.layer.{i}.mlp.weights_out.{p}"),
    ),
)
"""The giant's gated MLP has names of its own."""

DEIT = replace(
    VIT,
    name="Hugging Face DeiT",
    rules=(
        *(rule for rule in VIT.rules if rule.ours != "prefix.tokens"),
        Rule("prefix.tokens", ("embeddings.cls_token", "embeddings.distillation_token"), side_by_side(2)),
    ),
)
"""With the distillation token, and a classifier on the class token alone."""

DEIT_TEACHER = replace(
    DEIT,
    head=tuple(
        Rule(f"{ours}.{part}", f"{theirs}.{part}")
        for ours, theirs in (("linear", "cls_classifier"), ("dist", "distillation_classifier"))
        for part in ("weight", "bias")
    ),
)
"""With both classifiers."""

SWIN_SPELLINGS = (
    (r"^swin\.", ""),
    (r"\.attention\.([qkv])_proj\.", r".attention.self.\1_proj."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.attention\.relative_position_bias\.", ".attention.self."),
    (r"\.self\.q_proj\.", ".self.query."),
    (r"\.self\.k_proj\.", ".self.key."),
    (r"\.self\.v_proj\.", ".self.value."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)

_BLOCK = "encoder.layers.{s}.blocks.{b}"

SWIN = Table(
    "Hugging Face Swin",
    rules=(
        Rule("embed.project.{p}", "embeddings.patch_embeddings.projection.{p}"),
        Rule("embed_norm.{p}", "embeddings.norm.{p}"),
        Rule("position.table", "embeddings.position_embeddings"),
        Rule(
            "pyramid.stages.{s}.{b}.attention.qkv.{p}",
            tuple(f"{_BLOCK}.attention.self.{name}.{{p}}" for name in ("query", "key", "value")),
            stacked(3),
        ),
        *(
            Rule(f"pyramid.stages.{{s}}.{{b}}.{ours}.{{p}}", f"{_BLOCK}.{theirs}.{{p}}")
            for ours, theirs in (
                ("norm1", "layernorm_before"),
                ("attention.out", "attention.output.dense"),
                ("norm2", "layernorm_after"),
                ("mlp.rise", "intermediate.dense"),
                ("mlp.fall", "output.dense"),
            )
        ),
        Rule(
            "pyramid.stages.{s}.{b}.attention.bias.table",
            f"{_BLOCK}.attention.self.relative_position_bias_table",
        ),
        Rule("pyramid.merges.{s}.norm.{p}", "encoder.layers.{s}.downsample.norm.{p}"),
        Rule("pyramid.merges.{s}.reduce.weight", "encoder.layers.{s}.downsample.reduction.weight"),
        Rule("norm.{p}", "layernorm.{p}"),
    ),
    head=(Rule("linear.weight", "classifier.weight"), Rule("linear.bias", "classifier.bias")),
    ignored=("*.relative_position_index", "embeddings.mask_token"),
)
