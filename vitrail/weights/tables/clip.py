"""The layouts of CLIP's files: OpenAI's, which open_clip shares, transformers', and timm's of image towers alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from vitrail.core.errors import WeightsError
from vitrail.weights.rules import TRANSPOSE, Op, Rule, Table, stacked
from vitrail.weights.tables import timm

ROW = Op(lambda theirs: theirs[0][None], lambda ours: (ours[0],))  # (n, d) and (1, n, d)
TOKEN = Op(lambda theirs: theirs[0][None, None], lambda ours: (ours[0, 0],))  # (d) and (1, 1, d)
NUMBER = Op(lambda theirs: theirs[0].reshape(()), lambda ours: (ours,))  # a few files have (1)

SPELLINGS = (
    (r"^text\.", ""),
    (r"^(clip|model)\.", ""),
    (r"^(embeddings|encoder|pre_layrnorm|post_layernorm)\.", r"vision_model.\1."),
)
"""From names of open_clip's newer networks, and of transformers' image towers alone, to those of a whole CLIP."""

SCALARS = ("input_resolution", "context_length", "vocab_size")
"""What OpenAI's files state beside the weights."""

BIAS = "logit_bias"
"""The bias of the sigmoid loss, which files of the softmax loss do not have."""


def _blocks(ours: str, theirs: str, pairs: tuple[tuple[str, str], ...]) -> tuple[Rule, ...]:
    return tuple(Rule(f"{ours}.{a}.{{p}}", f"{theirs}.{b}.{{p}}") for a, b in pairs)


def _official(ours: str, theirs: str) -> tuple[Rule, ...]:
    """Return the rules of the blocks of a tower of OpenAI's."""
    return (
        Rule(f"{ours}.attention.qkv.{{p}}", f"{theirs}.attn.in_proj_{{p}}"),
        *_blocks(
            ours,
            theirs,
            (
                ("norm1", "ln_1"),
                ("attention.out", "attn.out_proj"),
                ("norm2", "ln_2"),
                ("mlp.rise", "mlp.c_fc"),
                ("mlp.fall", "mlp.c_proj"),
            ),
        ),
    )


def _hub(ours: str, theirs: str) -> tuple[Rule, ...]:
    """Return the rules of the blocks of a tower of transformers."""
    return (
        Rule(
            f"{ours}.attention.qkv.{{p}}",
            tuple(f"{theirs}.self_attn.{name}_proj.{{p}}" for name in "qkv"),
            stacked(3),
        ),
        *_blocks(
            ours,
            theirs,
            (
                ("norm1", "layer_norm1"),
                ("attention.out", "self_attn.out_proj"),
                ("norm2", "layer_norm2"),
                ("mlp.rise", "mlp.fc1"),
                ("mlp.fall", "mlp.fc2"),
            ),
        ),
    )


_NUMBERS = (Rule("scale", "logit_scale", NUMBER), Rule("bias", BIAS, NUMBER))

OFFICIAL = Table(
    "official CLIP",
    rules=(
        Rule("embed.project.weight", "visual.conv1.weight"),
        Rule("prefix.tokens", "visual.class_embedding", TOKEN),
        Rule("position.table", "visual.positional_embedding", ROW),
        Rule("norm_pre.{p}", "visual.ln_pre.{p}"),
        *_official("blocks.{i}", "visual.transformer.resblocks.{i}"),
        Rule("norm.{p}", "visual.ln_post.{p}"),
    ),
    head=(
        Rule("project.weight", "visual.proj", TRANSPOSE),
        Rule("project_text.weight", "text_projection", TRANSPOSE),
        Rule("tower.embed.weight", "token_embedding.weight"),
        Rule("tower.table", "positional_embedding"),
        *_official("tower.blocks.{i}", "transformer.resblocks.{i}"),
        Rule("tower.norm.{p}", "ln_final.{p}"),
        *_NUMBERS,
    ),
    ignored=(*SCALARS, "*attn_mask"),  # a mask of causal attention is made again
)

HUB = Table(
    "Hugging Face CLIP",
    rules=(
        Rule("embed.project.weight", "vision_model.embeddings.patch_embedding.weight"),
        Rule("prefix.tokens", "vision_model.embeddings.class_embedding", TOKEN),
        Rule("position.table", "vision_model.embeddings.position_embedding.weight", ROW),
        Rule("norm_pre.{p}", "vision_model.pre_layrnorm.{p}"),  # its authors' spelling
        *_hub("blocks.{i}", "vision_model.encoder.layers.{i}"),
        Rule("norm.{p}", "vision_model.post_layernorm.{p}"),
    ),
    head=(
        Rule("project.weight", "visual_projection.weight"),
        Rule("project_text.weight", "text_projection.weight"),
        Rule("tower.embed.weight", "text_model.embeddings.token_embedding.weight"),
        Rule("tower.table", "text_model.embeddings.position_embedding.weight"),
        *_hub("tower.blocks.{i}", "text_model.encoder.layers.{i}"),
        Rule("tower.norm.{p}", "text_model.final_layer_norm.{p}"),
        *_NUMBERS,
    ),
    ignored=("*.position_ids",),
)

TIMM = Table(
    "timm CLIP",
    rules=(*timm.VIT.rules, Rule("norm_pre.{p}", "norm_pre.{p}")),
    head=timm.HEAD[:2],
)
"""The image tower alone; its classifier is the projection, or that of a fine-tune."""


def written(layout: str, head: Collection[str]) -> Table | None:
    """Return the table that writes a CLIP with a head of these tensors, or None if the layout has no such head."""
    table = {"official": OFFICIAL, "huggingface": HUB, "timm": TIMM}[layout]
    return table if not head or ("linear.weight" in head) == (table is TIMM) else None


def published(tensors: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Return the tensors of a file, without a bias of the sigmoid loss that was never trained.

    Raises:
        WeightsError: the bias was trained, and the layout has none.
    """
    bias = tensors.get(BIAS)
    if bias is not None and bool(bias.any()) and layout == "huggingface":
        raise WeightsError(
            "The CLIP of transformers has no bias of the sigmoid loss. Write it in another layout: --to official"
        )
    return {name: tensor for name, tensor in tensors.items() if name != BIAS or bool(tensor.any())}
