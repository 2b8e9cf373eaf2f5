"""Networks of transformers that timm also has: from the names in hub files to timm's names, for reading only."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vitrail.weights.rules import Op, Rule, Table, rename_keys, stacked

SPELLINGS = (
    (r"^model\.", ""),
    (r"^(vision_model|beit|clip|siglip|swinv2|resnet|convnext|convnextv2|dinov3_vit)\.", ""),
    (r"^vision_model\.", ""),
)
"""What stands in front of the names, where the network has a head or a text tower beside it."""

ROW = Op(lambda theirs: theirs[0][None], lambda ours: (ours[0],))  # (n, d) and (1, n, d)
TOKEN = Op(lambda theirs: theirs[0][None, None], lambda ours: (ours[0, 0],))  # (d) and (1, 1, d)
FLAT = Op(lambda theirs: theirs[0].flatten(), lambda ours: (ours.view(1, 1, 1, -1),))

NEVER_READ = (
    "*.position_ids",
    "position_ids",
    "*.relative_position_index",
    "embeddings.mask_token",
)
"""Buffers that are made again, and a token of the pretraining."""

BESIDE = (
    "text_model.*",
    "text_projection.*",
    "visual_projection.*",
    "logit_scale",
    "logit_bias",
    "decoder.*",
    "decoder_*",
    "lm_head.*",
)
"""Tensors that do not belong to the image encoder; a note reports that they are not used."""


def _pairs(ours: str, theirs: str, pairs: tuple[tuple[str, str], ...]) -> tuple[Rule, ...]:
    return tuple(Rule(f"net.{ours}.{a}.{{p}}", f"{theirs}.{b}.{{p}}") for a, b in pairs)


def _linear(theirs: str = "classifier") -> tuple[Rule, ...]:
    return Rule("linear.weight", f"{theirs}.weight"), Rule("linear.bias", f"{theirs}.bias")


def _table(name: str, *rules: Rule, head: tuple[Rule, ...] = ()) -> Table:
    return Table(f"Hugging Face {name}", rules, head, (*NEVER_READ, *BESIDE))


_TOWER = "encoder.layers.{i}"
_QKV = tuple(f"{_TOWER}.self_attn.{name}_proj" for name in "qkv")

_TOWER_RULES = (
    Rule("net.patch_embed.proj.{p}", "embeddings.patch_embedding.{p}"),
    Rule("net.pos_embed", "embeddings.position_embedding.weight", ROW),
    Rule("net.blocks.{i}.attn.qkv.{p}", tuple(f"{name}.{{p}}" for name in _QKV), stacked(3)),
    *_pairs(
        "blocks.{i}",
        _TOWER,
        (
            ("attn.proj", "self_attn.out_proj"),
            ("norm1", "layer_norm1"),
            ("norm2", "layer_norm2"),
            ("mlp.fc1", "mlp.fc1"),
            ("mlp.fc2", "mlp.fc2"),
        ),
    ),
    Rule("net.norm.{p}", "post_layernorm.{p}"),
)

SIGLIP = _table(
    "SigLIP",
    *_TOWER_RULES,
    Rule("net.attn_pool.latent", "head.probe"),
    Rule("net.attn_pool.q.{p}", "head.attention.q_proj.{p}"),
    Rule("net.attn_pool.kv.{p}", ("head.attention.k_proj.{p}", "head.attention.v_proj.{p}"), stacked(2)),
    Rule("net.attn_pool.proj.{p}", "head.attention.out_proj.{p}"),
    Rule("net.attn_pool.norm.{p}", "head.layernorm.{p}"),
    Rule("net.attn_pool.mlp.{f}.{p}", "head.mlp.{f}.{p}"),
)
"""Its pool's projections are apart (`apart`)."""

_LAYER, _SELF = "layer.{i}", "layer.{i}.attention"

DINOV3 = _table(
    "DINOv3",
    Rule("net.patch_embed.proj.{p}", "embeddings.patch_embeddings.{p}"),
    Rule("net.cls_token", "embeddings.cls_token"),
    Rule("net.reg_token", "embeddings.register_tokens"),
    Rule("net.blocks.{i}.attn.qkv.weight", tuple(f"{_SELF}.{x}_proj.weight" for x in "qkv"), stacked(3)),
    Rule("net.blocks.{i}.attn.q_bias", f"{_SELF}.q_proj.bias"),
    Rule("net.blocks.{i}.attn.v_bias", f"{_SELF}.v_proj.bias"),
    Rule("net.blocks.{i}.gamma_1", f"{_LAYER}.layer_scale1.lambda1"),
    Rule("net.blocks.{i}.gamma_2", f"{_LAYER}.layer_scale2.lambda1"),
    *_pairs(
        "blocks.{i}",
        _LAYER,
        (
            ("attn.proj", "attention.o_proj"),
            ("norm1", "norm1"),
            ("norm2", "norm2"),
            ("mlp.fc1", "mlp.up_proj"),
            ("mlp.fc1_g", "mlp.gate_proj"),
            ("mlp.fc1_x", "mlp.up_proj"),
            ("mlp.fc2", "mlp.down_proj"),
        ),
    ),
    Rule("net.norm.{p}", "norm.{p}"),
    head=_linear(),
)

_BEIT = "encoder.layer.{i}"
_BEIT_SELF = f"{_BEIT}.attention.attention"

BEIT = _table(
    "BEiT",
    Rule("net.patch_embed.proj.{p}", "embeddings.patch_embeddings.projection.{p}"),
    Rule("net.cls_token", "embeddings.cls_token"),
    Rule("net.pos_embed", "embeddings.position_embeddings"),
    Rule(
        "net.rel_pos_bias.relative_position_bias_table",
        "encoder.relative_position_bias.relative_position_bias_table",
    ),
    Rule(
        "net.blocks.{i}.attn.qkv.weight",
        tuple(f"{_BEIT_SELF}.{name}.weight" for name in ("query", "key", "value")),
        stacked(3),
    ),
    Rule("net.blocks.{i}.attn.q_bias", f"{_BEIT_SELF}.query.bias"),
    Rule("net.blocks.{i}.attn.v_bias", f"{_BEIT_SELF}.value.bias"),
    Rule(
        "net.blocks.{i}.attn.relative_position_bias_table",
        f"{_BEIT_SELF}.relative_position_bias.relative_position_bias_table",
    ),
    Rule("net.blocks.{i}.gamma_1", f"{_BEIT}.lambda_1"),
    Rule("net.blocks.{i}.gamma_2", f"{_BEIT}.lambda_2"),
    *_pairs(
        "blocks.{i}",
        _BEIT,
        (
            ("attn.proj", "attention.output.dense"),
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ),
    ),
    Rule("net.fc_norm.{p}", "pooler.layernorm.{p}"),
    Rule("net.norm.{p}", "layernorm.{p}"),
    head=_linear(),
)

_STAGE = "encoder.layers.{s}.blocks.{b}"
_WINDOW = f"{_STAGE}.attention.self"

SWINV2 = _table(
    "Swinv2",
    Rule("net.patch_embed.proj.{p}", "embeddings.patch_embeddings.projection.{p}"),
    Rule("net.patch_embed.norm.{p}", "embeddings.norm.{p}"),
    Rule(
        "net.layers.{s}.blocks.{b}.attn.qkv.weight",
        tuple(f"{_WINDOW}.{name}.weight" for name in ("query", "key", "value")),
        stacked(3),
    ),
    Rule("net.layers.{s}.blocks.{b}.attn.q_bias", f"{_WINDOW}.query.bias"),
    Rule("net.layers.{s}.blocks.{b}.attn.v_bias", f"{_WINDOW}.value.bias"),
    Rule("net.layers.{s}.blocks.{b}.attn.logit_scale", f"{_WINDOW}.logit_scale"),
    Rule(
        "net.layers.{s}.blocks.{b}.attn.cpb_mlp.{n}.{p}",
        f"{_WINDOW}.continuous_position_bias_mlp.{{n}}.{{p}}",
    ),
    *_pairs(
        "layers.{s}.blocks.{b}",
        _STAGE,
        (
            ("attn.proj", "attention.output.dense"),
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ),
    ),
    Rule("net.layers.{s}.downsample.{m}.{p}", "encoder.layers.{s-1}.downsample.{m}.{p}"),
    Rule("net.norm.{p}", "layernorm.{p}"),
    head=_linear(),
)

_CONVS = "encoder.stages.{s-1}.layers.{b}"

RESNET = _table(
    "ResNet",
    Rule("net.conv1.weight", "embedder.embedder.convolution.weight"),
    Rule("net.bn1.{p}", "embedder.embedder.normalization.{p}"),
    *(
        rule
        for n in (1, 2, 3)
        for rule in (
            Rule(f"net.layer{{s}}.{{b}}.conv{n}.weight", f"{_CONVS}.layer.{n - 1}.convolution.weight"),
            Rule(f"net.layer{{s}}.{{b}}.bn{n}.{{p}}", f"{_CONVS}.layer.{n - 1}.normalization.{{p}}"),
        )
    ),
    Rule("net.layer{s}.{b}.downsample.0.weight", f"{_CONVS}.shortcut.convolution.weight"),
    Rule("net.layer{s}.{b}.downsample.1.{p}", f"{_CONVS}.shortcut.normalization.{{p}}"),
    head=_linear("classifier.1"),
)

_BLOCK = "encoder.stages.{s}.layers.{b}"

CONVNEXT = _table(
    "ConvNeXt",
    Rule("net.stem.0.{p}", "embeddings.patch_embeddings.{p}"),
    Rule("net.stem.1.{p}", "embeddings.layernorm.{p}"),
    Rule("net.stages.{s}.downsample.{n}.{p}", "encoder.stages.{s}.downsampling_layer.{n}.{p}"),
    Rule("net.stages.{s}.blocks.{b}.gamma", f"{_BLOCK}.layer_scale_parameter"),
    Rule("net.stages.{s}.blocks.{b}.mlp.grn.{p}", f"{_BLOCK}.grn.{{p}}", FLAT),
    *_pairs(
        "stages.{s}.blocks.{b}",
        _BLOCK,
        (("conv_dw", "dwconv"), ("norm", "layernorm"), ("mlp.fc1", "pwconv1"), ("mlp.fc2", "pwconv2")),
    ),
    Rule("net.head.norm.{p}", "layernorm.{p}"),
    head=_linear(),
)


def apart(source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without prefixes, and with separate projections."""
    out: dict[str, Tensor] = {}
    for name, tensor in rename_keys(source, SPELLINGS).items():
        front, mark, part = name.partition("attention.in_proj_")
        if mark:
            for letter, one in zip("qkv", tensor.chunk(3), strict=True):
                out[f"{front}attention.{letter}_proj.{part}"] = one
        else:
            out[name] = tensor
    return out
