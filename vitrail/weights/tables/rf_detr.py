"""The layout of RF-DETR's files: the package rfdetr and transformers write the same names.

transformers has other names in memory; `SPELLINGS` turn them into those of the files, except for the projections of
the decoder's self-attention, which files stack.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitrail.layers.mask_branch import SCALE
from vitrail.weights.rules import Op, Part, Rule, Table, stacked

_BACKBONE = "backbone.0.encoder.encoder"
_LAYER = f"{_BACKBONE}.encoder.layer.{{i}}"
_PROJECTOR = "backbone.0.projector.stages.0"
_DECODER = "transformer.decoder"
_MASKS = "segmentation_head"

SPELLINGS = (
    (r"^(model\.)+", ""),
    (r"^backbone\.backbone\.", f"{_BACKBONE}."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"^backbone\.projector\.layer_norm\.", f"{_PROJECTOR}.1."),
    (r"^backbone\.projector\.projector_layer\.bottlenecks\.", f"{_PROJECTOR}.0.m."),
    (r"^backbone\.projector\.projector_layer\.", f"{_PROJECTOR}.0."),
    (r"(projector\..+)\.conv([12])\.norm\.", r"\1.cv\2.bn."),
    (r"(projector\..+)\.conv([12])\.conv\.", r"\1.cv\2.conv."),
    (r"^decoder\.", f"{_DECODER}."),
    (r"(decoder\.layers\.\d+)\.self_attn_layer_norm\.", r"\1.norm1."),
    (r"(decoder\.layers\.\d+)\.cross_attn_layer_norm\.", r"\1.norm2."),
    (r"(decoder\.layers\.\d+)\.layer_norm\.", r"\1.norm3."),
    (r"(decoder\.layers\.\d+)\.mlp\.fc([12])\.", r"\1.linear\2."),
    (r"\.self_attn\.o_proj\.", ".self_attn.out_proj."),
    (r"^transformer\.decoder\.layernorm\.", f"{_DECODER}.norm."),
    (r"^enc_out", "transformer.enc_out"),
    (r"^reference_point_embed\.", "refpoint_embed."),
    (r"^blocks\.(\d+)\.layernorm\.", rf"{_MASKS}.blocks.\1.norm."),
    (r"^blocks\.(\d+)\.depthwise_conv\.", rf"{_MASKS}.blocks.\1.dwconv."),
    (r"^blocks\.(\d+)\.pointwise_conv\.", rf"{_MASKS}.blocks.\1.pwconv1."),
    (r"^query_features_block\.norm\.", f"{_MASKS}.query_features_block.norm_in."),
    (r"^query_features_block\.mlp\.fc1\.", f"{_MASKS}.query_features_block.layers.0."),
    (r"^query_features_block\.mlp\.fc2\.", f"{_MASKS}.query_features_block.layers.2."),
    (r"^(query|spatial)_features_proj\.", rf"{_MASKS}.\1_features_proj."),
    (r"^segmentation_bias$", f"{_MASKS}.bias"),
)
"""From transformers' names in memory to those of its files."""


def _swapped(weight: Tensor) -> Tensor:
    """Return a layer on the sines of x, y, width and height of a box as one on those of y, x, … and back."""
    first, second, rest = weight.tensor_split([weight.shape[1] // 4, weight.shape[1] // 2], 1)
    return torch.cat([second, first, rest], 1)


SINES = Op(lambda theirs: _swapped(theirs[0]), lambda ours: (_swapped(ours),))
SCALED = Op(lambda theirs: theirs[0] / SCALE, lambda ours: (ours * SCALE,))  # exact: SCALE is a power of two

ENCODER = (
    Rule("embed.project.{p}", f"{_BACKBONE}.embeddings.patch_embeddings.projection.{{p}}"),
    Rule("prefix.tokens", f"{_BACKBONE}.embeddings.cls_token"),
    Rule("position.table", f"{_BACKBONE}.embeddings.position_embeddings"),
    Rule("norm.{p}", f"{_BACKBONE}.layernorm.{{p}}"),
    Rule(
        "blocks.{i}.attention.qkv.{p}",
        tuple(f"{_LAYER}.attention.attention.{name}.{{p}}" for name in ("query", "key", "value")),
        stacked(3),
    ),
    Rule("blocks.{i}.attention.out.{p}", f"{_LAYER}.attention.output.dense.{{p}}"),
    *(Rule(f"blocks.{{i}}.norm{n}.{{p}}", f"{_LAYER}.norm{n}.{{p}}") for n in (1, 2)),
    *(Rule(f"blocks.{{i}}.scale{n}.gamma", f"{_LAYER}.layer_scale{n}.lambda1") for n in (1, 2)),
    Rule("blocks.{i}.mlp.rise.{p}", f"{_LAYER}.mlp.fc1.{{p}}"),
    Rule("blocks.{i}.mlp.fall.{p}", f"{_LAYER}.mlp.fc2.{{p}}"),
)

PROJECTOR = (
    *(
        rule
        for ours, theirs in (("enter", "cv1"), ("join", "cv2"))
        for rule in (
            Rule(f"projector.{ours}.0.weight", f"{_PROJECTOR}.0.{theirs}.conv.weight"),
            Rule(f"projector.{ours}.1.{{p}}", f"{_PROJECTOR}.0.{theirs}.bn.{{p}}"),
        )
    ),
    *(
        rule
        for ours, theirs in ((0, "cv1"), (1, "cv2"))
        for rule in (
            Rule(f"projector.pairs.{{i}}.{ours}.0.weight", f"{_PROJECTOR}.0.m.{{i}}.{theirs}.conv.weight"),
            Rule(f"projector.pairs.{{i}}.{ours}.1.{{p}}", f"{_PROJECTOR}.0.m.{{i}}.{theirs}.bn.{{p}}"),
        )
    ),
    Rule("projector.norm.{p}", f"{_PROJECTOR}.1.{{p}}"),
)


def _changes(ours: str, theirs: str) -> tuple[Rule, ...]:
    """Return the rules of the three layers that change a box."""
    return tuple(Rule(f"{ours}.{2 * n}.{{p}}", f"{theirs}.layers.{n}.{{p}}") for n in range(3))


PROPOSERS = (
    Rule("decoder.proposers.{i}.read.{p}", "transformer.enc_output.{i}.{p}"),
    Rule("decoder.proposers.{i}.norm.{p}", "transformer.enc_output_norm.{i}.{p}"),
    Rule("decoder.proposers.{i}.classes.{p}", "transformer.enc_out_class_embed.{i}.{p}"),
    *_changes("decoder.proposers.{i}.change", "transformer.enc_out_bbox_embed.{i}"),
)


def _attention(apart: bool) -> tuple[Rule, ...]:
    """Return the rules of the attention among queries, whose projections are stacked or `apart`."""
    ours, theirs = "decoder.layers.{i}", f"{_DECODER}.layers.{{i}}.self_attn"
    rules: list[Rule] = []
    for place, name in enumerate(("query", "key", "value")):
        if apart:
            rules.append(Rule(f"{ours}.{name}.{{p}}", f"{theirs}.{name[0]}_proj.{{p}}"))
        else:
            part = Part(place, 3)
            rules.append(Rule(f"{ours}.{name}.{{p}}", f"{theirs}.in_proj_{{p}}", part=part))
    return *rules, Rule(f"{ours}.project.{{p}}", f"{theirs}.out_proj.{{p}}")


def _decoder() -> tuple[Rule, ...]:
    ours, theirs = "decoder.layers.{i}", f"{_DECODER}.layers.{{i}}"
    pairs = (
        ("cross.offsets", "cross_attn.sampling_offsets"),
        ("cross.weights", "cross_attn.attention_weights"),
        ("cross.values", "cross_attn.value_proj"),
        ("cross.project", "cross_attn.output_proj"),
        ("feed.0", "linear1"),
        ("feed.2", "linear2"),
        *((f"norms.{n}", f"norm{n + 1}") for n in range(3)),
    )
    return (
        Rule("decoder.content.weight", "query_feat.weight"),
        Rule("decoder.correction.weight", "refpoint_embed.weight"),
        Rule("decoder.place.0.weight", f"{_DECODER}.ref_point_head.layers.0.weight", SINES),
        Rule("decoder.place.0.bias", f"{_DECODER}.ref_point_head.layers.0.bias"),
        Rule("decoder.place.2.{p}", f"{_DECODER}.ref_point_head.layers.1.{{p}}"),
        *(Rule(f"{ours}.{a}.{{p}}", f"{theirs}.{b}.{{p}}") for a, b in pairs),
        Rule("decoder.norm.{p}", f"{_DECODER}.norm.{{p}}"),
        Rule("decoder.classes.{p}", "class_embed.{p}"),
        *_changes("decoder.change", "bbox_embed"),
    )


MASKS = (
    Rule("masks.blocks.{i}.depthwise.{p}", f"{_MASKS}.blocks.{{i}}.dwconv.{{p}}"),
    Rule("masks.blocks.{i}.norm.{p}", f"{_MASKS}.blocks.{{i}}.norm.{{p}}"),
    Rule("masks.blocks.{i}.linear.{p}", f"{_MASKS}.blocks.{{i}}.pwconv1.{{p}}"),
    Rule("masks.cells.{p}", f"{_MASKS}.spatial_features_proj.{{p}}"),
    Rule("masks.norm.{p}", f"{_MASKS}.query_features_block.norm_in.{{p}}"),
    *(Rule(f"masks.feed.{n}.{{p}}", f"{_MASKS}.query_features_block.layers.{n}.{{p}}") for n in (0, 2)),
    Rule("masks.queries.{p}", f"{_MASKS}.query_features_proj.{{p}}", SCALED),
    Rule("masks.bias", f"{_MASKS}.bias"),
)


def table(*, apart: bool = False) -> Table:
    """Return the table of RF-DETR with all its heads; `apart` is that of transformers' names in memory."""
    return Table(
        "RF-DETR",
        ENCODER,
        (*PROJECTOR, *PROPOSERS, *_attention(apart), *_decoder(), *MASKS),
        # The token of masked patches is used only in pretraining, and the mask of key points is empty.
        (f"{_BACKBONE}.embeddings.mask_token", "_kp_active_mask"),
    )
