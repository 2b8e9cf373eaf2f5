"""The layouts of DETR's files: its authors', and that of transformers, whose backbone has timm's names.

In both, the parts of a network with masks stand behind "detr.", and the head of masks beside them. `SPELLINGS` turn
other names of transformers, those in memory and those of its own ResNet, into those of the published files.
"""

from __future__ import annotations

from typing import NamedTuple

from vitrail.weights.rules import Part, Rule, Table

QKV = ("query", "key", "value")

SPELLINGS = (
    (r"(^|\.)model\.backbone\.model\.", r"\1model.backbone.conv_encoder.model."),
    (r"\.backbone\.position_embedding\.", ".position_embedding."),
    (r"(layers\.\d+\.\w+_attn|encoder_attn)\.o_proj\.", r"\1.out_proj."),
    (r"(layers\.\d+)\.mlp\.fc([12])\.", r"\1.fc\2."),
    (r"\.model\.embedder\.embedder\.convolution\.", ".model.conv1."),
    (r"\.model\.embedder\.embedder\.normalization\.", ".model.bn1."),
    *((rf"\.model\.encoder\.stages\.{n}\.layers\.(\d+)\.", rf".model.layer{n + 1}.\1.") for n in range(4)),
    *((rf"(layer\d\.\d+)\.layer\.{n}\.convolution\.", rf"\1.conv{n + 1}.") for n in range(3)),
    *((rf"(layer\d\.\d+)\.layer\.{n}\.normalization\.", rf"\1.bn{n + 1}.") for n in range(3)),
    (r"(layer\d\.\d+)\.shortcut\.convolution\.", r"\1.downsample.0."),
    (r"(layer\d\.\d+)\.shortcut\.normalization\.", r"\1.downsample.1."),
    (r"^bbox_attention\.([qk])_proj\.", r"bbox_attention.\1_linear."),
    *((rf"^mask_head\.conv{n}\.conv\.", f"mask_head.lay{n}.") for n in (1, 2)),
    *((rf"^mask_head\.conv{n}\.norm\.", f"mask_head.gn{n}.") for n in (1, 2)),
    *((rf"^mask_head\.fpn_stages\.{n}\.fpn_adapter\.", f"mask_head.adapter{n + 1}.") for n in range(3)),
    *((rf"^mask_head\.fpn_stages\.{n}\.refine\.conv\.", f"mask_head.lay{n + 3}.") for n in range(3)),
    *((rf"^mask_head\.fpn_stages\.{n}\.refine\.norm\.", f"mask_head.gn{n + 3}.") for n in range(3)),
    (r"^mask_head\.output_conv\.", "mask_head.out_lay."),
)
"""From transformers' other names to those of the published files."""


class _Names(NamedTuple):
    """The names of a layout; norms in the order in which they are used."""

    backbone: str
    project: str
    rows: str
    cols: str
    encoder: str
    decoder: str
    last: str  # the norm behind all layers
    cross: str
    encoder_norms: tuple[str, ...]
    decoder_norms: tuple[str, ...]
    feed: tuple[str, str]
    queries: str
    classes: str
    change: str
    apart: bool  # whether queries, keys and values have tensors of their own


_OFFICIAL = _Names(
    "backbone.0.body",
    "input_proj",
    "backbone.1.row_embed.weight",
    "backbone.1.col_embed.weight",
    "transformer.encoder",
    "transformer.decoder",
    "norm",
    "multihead_attn",
    ("norm1", "norm2"),
    ("norm1", "norm2", "norm3"),
    ("linear1", "linear2"),
    "query_embed.weight",
    "class_embed",
    "bbox_embed",
    apart=False,
)

_HUB = _Names(
    "model.backbone.conv_encoder.model",
    "model.input_projection",
    "model.position_embedding.row_embeddings.weight",
    "model.position_embedding.column_embeddings.weight",
    "model.encoder",
    "model.decoder",
    "layernorm",
    "encoder_attn",
    ("self_attn_layer_norm", "final_layer_norm"),
    ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
    ("fc1", "fc2"),
    "model.query_position_embeddings.weight",
    "class_labels_classifier",
    "bbox_predictor",
    apart=True,
)

MASKS = (
    *(Rule(f"looks.{ours}.{{p}}", f"bbox_attention.{ours[0]}_linear.{{p}}") for ours in ("query", "key")),
    Rule("masks.steps.{i}.{p}", "mask_head.lay{i+1}.{p}"),
    Rule("masks.norms.{i}.{p}", "mask_head.gn{i+1}.{p}"),
    Rule("masks.adapters.{i}.{p}", "mask_head.adapter{i+1}.{p}"),
    Rule("masks.last.{p}", "mask_head.out_lay.{p}"),
)


def _attention(ours: str, theirs: str, apart: bool) -> tuple[Rule, ...]:
    """Return the rules of an attention, whose projections are stacked or `apart`."""
    out = Rule(f"{ours}.project.{{p}}", f"{theirs}.out_proj.{{p}}")
    if apart:
        return *(Rule(f"{ours}.{name}.{{p}}", f"{theirs}.{name[0]}_proj.{{p}}") for name in QKV), out
    stacked = f"{theirs}.in_proj_{{p}}"
    return *(Rule(f"{ours}.{name}.{{p}}", stacked, part=Part(n, 3)) for n, name in enumerate(QKV)), out


def _layers(ours: str, theirs: str, norms: tuple[str, ...], names: _Names) -> tuple[Rule, ...]:
    return (
        *_attention(f"{ours}.self_attention", f"{theirs}.self_attn", names.apart),
        *(Rule(f"{ours}.norm{n}.{{p}}", f"{theirs}.{name}.{{p}}") for n, name in enumerate(norms, 1)),
        Rule(f"{ours}.rise.{{p}}", f"{theirs}.{names.feed[0]}.{{p}}"),
        Rule(f"{ours}.fall.{{p}}", f"{theirs}.{names.feed[1]}.{{p}}"),
    )


def table(*, hub: bool = False, masks: bool = False) -> Table:
    """Return the table of the authors' files, or those of the hub; `masks` is that of a network with masks."""
    names, front = _HUB if hub else _OFFICIAL, "detr." if masks else ""
    encoder, decoder = (f"{front}{one}" for one in (names.encoder, names.decoder))
    tables = (
        Rule("position.rows", f"{front}{names.rows}"),
        Rule("position.cols", f"{front}{names.cols}"),
    )
    layer, theirs = "decoder.layers.{i}", f"{decoder}.layers.{{i}}"
    return Table(
        "DETR",
        (
            Rule("backbone.{rest}", f"{front}{names.backbone}.{{rest}}"),
            Rule("project.{p}", f"{front}{names.project}.{{p}}"),
            *tables,
            *_layers("blocks.{i}", f"{encoder}.layers.{{i}}", names.encoder_norms, names),
            Rule("norm.{p}", f"{encoder}.{names.last}.{{p}}"),
        ),
        (
            *tables,
            *_layers(layer, theirs, names.decoder_norms, names),
            *_attention(f"{layer}.cross", f"{theirs}.{names.cross}", names.apart),
            Rule("decoder.norm.{p}", f"{decoder}.{names.last}.{{p}}"),
            Rule("decoder.queries", f"{front}{names.queries}"),
            Rule("classes.{p}", f"{front}{names.classes}.{{p}}"),
            *(Rule(f"change.{2 * n}.{{p}}", f"{front}{names.change}.layers.{n}.{{p}}") for n in range(3)),
            *MASKS,
        ),
        ("*.num_batches_tracked",),
    )
