"""The layouts of DETR's files: those of its authors, and those of transformers."""

from __future__ import annotations

from typing import NamedTuple

from vitrail.weights.rules import Part, Rule, Table

BACKBONE = (
    (r"\.embedder\.embedder\.convolution\.", ".conv1."),
    (r"\.embedder\.embedder\.normalization\.", ".bn1."),
    *(
        (
            rf"\.encoder\.stages\.{stage}\.layers\.(\d+)\.layer\.{turn}\.{theirs}\.",
            rf".layer{stage + 1}.\1.{ours}{turn + 1}.",
        )
        for stage in range(4)
        for turn in range(3)
        for theirs, ours in (("convolution", "conv"), ("normalization", "bn"))
    ),
    *(
        (
            rf"\.encoder\.stages\.{stage}\.layers\.(\d+)\.shortcut\.{theirs}\.",
            rf".layer{stage + 1}.\1.downsample.{place}.",
        )
        for stage in range(4)
        for place, theirs in enumerate(("convolution", "normalization"))
    ),
)
"""From the names of transformers' own ResNet to torchvision's and timm's, which published files have."""

MEMORY = (
    (r"^model\.backbone\.model\.", "model.backbone.conv_encoder.model."),
    (r"(layers\.\d+\.\w+_attn)\.o_proj\.", r"\1.out_proj."),
    (r"(layers\.\d+)\.mlp\.fc([12])\.", r"\1.fc\2."),
    (r"^bbox_attention\.([qk])_proj\.", r"bbox_attention.\1_linear."),
    *((rf"^mask_head\.conv{n}\.conv\.", f"mask_head.lay{n}.") for n in (1, 2)),
    *((rf"^mask_head\.conv{n}\.norm\.", f"mask_head.gn{n}.") for n in (1, 2)),
    *((rf"^mask_head\.fpn_stages\.{n}\.fpn_adapter\.", f"mask_head.adapter{n + 1}.") for n in range(3)),
    *((rf"^mask_head\.fpn_stages\.{n}\.refine\.conv\.", f"mask_head.lay{n + 3}.") for n in range(3)),
    *((rf"^mask_head\.fpn_stages\.{n}\.refine\.norm\.", f"mask_head.gn{n + 3}.") for n in range(3)),
    (r"^mask_head\.output_conv\.", "mask_head.out_lay."),
)
"""From transformers' names in memory to those of its files."""

SPELLINGS = ((r"^detr\.", ""), *MEMORY, *BACKBONE)
"""Files with masks put everything else below `detr.`."""


class _Names(NamedTuple):
    """Names in files of one kind; layers of encoder and decoder are below `encoder` and `decoder`."""

    backbone: str
    project: str
    encoder: str
    decoder: str
    queries: str
    classes: str
    change: str
    norm: str
    cross: str
    feed: tuple[str, str]
    encoder_norms: tuple[str, str]
    decoder_norms: tuple[str, str, str]


OFFICIAL = _Names(
    "backbone.0.body", "input_proj", "transformer.encoder", "transformer.decoder", "query_embed", "class_embed",
    "bbox_embed", "transformer.decoder.norm", "multihead_attn", ("linear1", "linear2"), ("norm1", "norm2"),
    ("norm1", "norm2", "norm3"),
)  # fmt: skip
HUB = _Names(
    "model.backbone.conv_encoder.model", "model.input_projection", "model.encoder", "model.decoder",
    "model.query_position_embeddings", "class_labels_classifier", "bbox_predictor", "model.decoder.layernorm",
    "encoder_attn", ("fc1", "fc2"), ("self_attn_layer_norm", "final_layer_norm"),
    ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
)  # fmt: skip

_TABLES = tuple(
    Rule(f"position.{ours}", f"backbone.1.{theirs}_embed.weight")
    for ours, theirs in (("rows", "row"), ("cols", "col"))
)

_MASKS = (
    *(Rule(f"looks.{name}.{{p}}", f"bbox_attention.{name[0]}_linear.{{p}}") for name in ("query", "key")),
    *(Rule(f"masks.steps.{n}.{{p}}", f"mask_head.lay{n + 1}.{{p}}") for n in range(5)),
    *(Rule(f"masks.norms.{n}.{{p}}", f"mask_head.gn{n + 1}.{{p}}") for n in range(5)),
    *(Rule(f"masks.adapters.{n}.{{p}}", f"mask_head.adapter{n + 1}.{{p}}") for n in range(3)),
    Rule("masks.last.{p}", "mask_head.out_lay.{p}"),
)


def table(*, hub: bool, masks: bool = False) -> Table:
    """Return the table of DETR with its heads: of transformers' files (`hub`), or of its authors'.

    With `masks` all but the head of masks lies below `detr.`, as in files with one; `SPELLINGS` take that away.
    """
    front = "detr." if masks else ""
    names = _below(HUB if hub else OFFICIAL, front)
    places = tuple(Rule(rule.ours, f"{front}{rule.theirs}") for rule in _TABLES)
    encoder, decoder = "blocks.{i}", "decoder.layers.{i}"
    theirs = f"{names.encoder}.layers.{{i}}", f"{names.decoder}.layers.{{i}}"
    rules = (
        Rule("backbone.{rest}", f"{names.backbone}.{{rest}}"),
        Rule("project.{p}", f"{names.project}.{{p}}"),
        Rule("norm.{p}", f"{names.encoder}.norm.{{p}}"),
        *places,
        *_attention(f"{encoder}.self_attention", f"{theirs[0]}.self_attn", hub),
        *_layer(encoder, theirs[0], names.feed, names.encoder_norms),
    )
    head = (
        *places,
        Rule("decoder.queries", f"{names.queries}.weight"),
        *_attention(f"{decoder}.self_attention", f"{theirs[1]}.self_attn", hub),
        *_attention(f"{decoder}.cross", f"{theirs[1]}.{names.cross}", hub),
        *_layer(decoder, theirs[1], names.feed, names.decoder_norms),
        Rule("decoder.norm.{p}", f"{names.norm}.{{p}}"),
        Rule("classes.{p}", f"{names.classes}.{{p}}"),
        *(Rule(f"change.{2 * n}.{{p}}", f"{names.change}.layers.{n}.{{p}}") for n in range(3)),
        *_MASKS,
    )
    return Table("DETR", rules, head, ("*.num_batches_tracked",))


def _below(names: _Names, front: str) -> _Names:
    """Return names of whole tensors below a part of a larger network."""
    return names._replace(
        backbone=front + names.backbone,
        project=front + names.project,
        encoder=front + names.encoder,
        decoder=front + names.decoder,
        queries=front + names.queries,
        classes=front + names.classes,
        change=front + names.change,
        norm=front + names.norm,
    )


def _attention(ours: str, theirs: str, apart: bool) -> tuple[Rule, ...]:
    """Return the rules of an attention, whose projections are stacked or `apart`."""
    names = ("query", "key", "value")
    if apart:
        rules = [Rule(f"{ours}.{name}.{{p}}", f"{theirs}.{name[0]}_proj.{{p}}") for name in names]
    else:
        rules = [
            Rule(f"{ours}.{name}.{{p}}", f"{theirs}.in_proj_{{p}}", part=Part(place, 3))
            for place, name in enumerate(names)
        ]
    return *rules, Rule(f"{ours}.project.{{p}}", f"{theirs}.out_proj.{{p}}")


def _layer(ours: str, theirs: str, feed: tuple[str, ...], norms: tuple[str, ...]) -> tuple[Rule, ...]:
    return (
        *(
            Rule(f"{ours}.{a}.{{p}}", f"{theirs}.{b}.{{p}}")
            for a, b in zip(("rise", "fall"), feed, strict=True)
        ),
        *(Rule(f"{ours}.norm{n}.{{p}}", f"{theirs}.{name}.{{p}}") for n, name in enumerate(norms, 1)),
    )
