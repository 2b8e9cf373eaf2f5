"""What kind of weights a file holds: which table reads them, and the settings of their network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.core.errors import WeightsError
from vitrail.models.create import build, config_of, rebuild
from vitrail.weights import infer, rules
from vitrail.weights.conventions import (
    GOOGLE,
    HUGGINGFACE,
    OFFICIAL,
    TIMM,
    Conventions,
    Preprocessing,
    of_hub,
    of_timm_folder,
)
from vitrail.weights.files import Opened
from vitrail.weights.rules import Loaded, Table
from vitrail.weights.tables import google, huggingface, official
from vitrail.weights.tables import timm as timm_tables

OWN = ("vitrail", "vitrail_encoder")
"""The keys in our safetensors headers that describe the network: of a whole model, of an encoder alone."""


class Read(NamedTuple):
    """Weights under our names, the settings of their network, whose layout they had, and its preprocessing."""

    config: Any
    weights: Loaded
    source: str
    preprocessing: Preprocessing | None = None
    licence: str | None = None


class _Kind(NamedTuple):
    table: Table
    infer: Callable[[infer.Peek, Conventions, int | None], Any]
    tensors: Mapping[str, Tensor]
    conventions: Conventions
    heads: int | None = None


def read(opened: Opened, model: str | None = None) -> Read:
    """Return what an opened file holds, in our names and its source's own conventions.

    `model` names the network where the file cannot say it, and must be the file's where it can: WeightsError
    names the nearest preset otherwise.
    """
    if header := next((opened.metadata[key] for key in OWN if key in opened.metadata), None):
        return _own(opened, header)
    wanted = config_of(model) if model else None
    kind = _kind(opened, wanted)
    if kind is None or (wanted is not None and wanted.family == "timm"):
        return _timm_network(opened, wanted)
    config = kind.infer(partial(rules.peek, kind.table, kind.tensors), kind.conventions, _heads(kind, wanted))
    if wanted is not None and not infer.same_network(config, wanted):
        raise WeightsError(f"{opened.path} does not hold {model}. {_hint(config)}")
    if "layer_norm_eps" in opened.config:
        config = replace(config, norm_eps=opened.config["layer_norm_eps"])
    weights = rules.load(kind.table, kind.tensors, shapes(config), lambda: _hint(config))
    stated = of_timm_folder(opened.config) or kind.conventions.preprocessing
    return Read(config, weights, kind.conventions.name, stated)


def shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of an encoder's tensors; no memory is filled."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in build(config).state_dict().items()}


def _kind(opened: Opened, wanted: Any) -> _Kind | None:
    """Tell the layout by the names of the tensors."""
    names = opened.tensors.keys()
    if any(name.endswith("embedding/kernel") for name in names):
        spelt = google.spelt(opened.tensors)
        query = next((t for n, t in spelt.items() if n.endswith("query/kernel")), None)
        return _Kind(google.vit(), infer.vit, spelt, GOOGLE, query.shape[1] if query is not None else None)
    if "MixerBlock_0/token_mixing/Dense_0/kernel" in names:
        return _Kind(google.MIXER, infer.mixer, opened.tensors, GOOGLE)
    if "blocks.0.mlp_tokens.fc1.weight" in names and "stem.proj.weight" in names:
        return _Kind(timm_tables.MIXER, infer.mixer, opened.tensors, TIMM)
    if any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in names):
        return _hub(opened)
    if {"patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight"} <= names:
        return _timm(opened, wanted)
    if "layers.0.blocks.0.attn.relative_position_bias_table" in names:
        table = official.SWIN if "layers.0.downsample.norm.weight" in names else official.SWIN_TIMM
        return _Kind(table, infer.swin, opened.tensors, OFFICIAL)
    if "pos_embed_list.0" in names:
        return _Kind(official.SUPERVIT, infer.supervit, opened.tensors, OFFICIAL)
    if "patch_embed1.proj.weight" in names and "block1.0.attn.q_proj.weight" in names:
        return _Kind(official.VVT, infer.vvt, opened.tensors, OFFICIAL)
    if "tokens_to_token.project.weight" in names:
        performer = "tokens_to_token.attention1.w" in names
        table = official.T2T_PERFORMER if performer else official.T2T_TRANSFORMER
        return _Kind(table, infer.t2t, opened.tensors, OFFICIAL)
    return None


def _hub(opened: Opened) -> _Kind:
    if any("relative_position_bias_table" in name for name in opened.tensors):
        swin = rules.respell(opened.tensors, huggingface.SWIN_SPELLINGS)
        conventions = replace(HUGGINGFACE, preprocessing=of_hub(opened.preprocessing))
        return _Kind(huggingface.SWIN, infer.swin, swin, conventions)
    spelt = rules.respell(opened.tensors, huggingface.SPELLINGS)
    acts = {"gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
    gelu: Any = acts.get(opened.config.get("hidden_act", ""), HUGGINGFACE.gelu)
    conventions = replace(HUGGINGFACE, gelu=gelu, preprocessing=of_hub(opened.preprocessing))
    heads = opened.config.get("num_attention_heads")
    if "embeddings.distillation_token" in spelt:
        both = "cls_classifier.weight" in spelt
        table = huggingface.DEIT_TEACHER if both else huggingface.DEIT
        return _Kind(table, infer.deit, spelt, conventions, heads)
    if "encoder.layer.0.layer_scale1.lambda1" not in spelt:
        return _Kind(huggingface.VIT, infer.vit, spelt, conventions, heads)
    gated = "encoder.layer.0.mlp.weights_in.weight" in spelt
    table = huggingface.DINOV2_SWIGLU if gated else huggingface.DINOV2
    return _Kind(table, infer.dinov2, spelt, conventions, heads)


def _timm(opened: Opened, wanted: Any) -> _Kind:
    tensors = opened.tensors
    if "dist_token" in tensors:
        return _Kind(timm_tables.DEIT_DISTILLED, infer.deit, tensors, TIMM)
    spelt = rules.respell(tensors, timm_tables.OFFICIAL_SPELLINGS)
    if "blocks.0.ls1.gamma" in spelt:
        return _Kind(timm_tables.DINOV2, infer.layer_scaled, spelt, TIMM)
    if wanted is not None and wanted.family == "deit":  # without distillation its files are a ViT's
        return _Kind(timm_tables.DEIT, infer.deit, tensors, TIMM)
    table = timm_tables.VIT
    for hybrid, root in ((timm_tables.HYBRID, "stem."), (timm_tables.HYBRID_ROOT, "")):
        if f"patch_embed.backbone.{root}conv.weight" in tensors:
            table = hybrid
    return _Kind(table, infer.vit, tensors, TIMM)


def _own(opened: Opened, header: str) -> Read:
    """Read a file that we wrote: a model with its task, or an encoder alone."""
    try:
        stated = json.loads(header)
        description = stated["encoder"]
    except (ValueError, KeyError) as error:
        raise WeightsError(f"{opened.path} has a broken header; copy it again.") from error
    with torch.device("meta"):
        config = rebuild(description).config
    encoder, head = (
        {name.removeprefix(part): t for name, t in opened.tensors.items() if name.startswith(part)}
        for part in ("encoder.", "head.")
    )
    if {name: tuple(tensor.shape) for name, tensor in encoder.items()} != shapes(config):
        raise WeightsError(
            f"{opened.path} does not hold the network that its header describes; copy it again."
        )
    return Read(config, Loaded(encoder, head), "vitrail", licence=stated.get("licence"))


def _timm_network(opened: Opened, wanted: Any) -> Read:
    config = wanted or _named_by_folder(opened.config)
    if config is None:
        raise WeightsError(
            f"{opened.path} holds no layout that is known (first tensors: {', '.join(list(opened.tensors)[:3])}); "
            "name its network (model=…), ours or timm's."
        )
    if config.family != "timm":
        raise WeightsError(f"{opened.path} holds no {config.family}; name the network that it was made for.")
    from timm import get_pretrained_cfg

    cfg = get_pretrained_cfg(config.name, allow_unregistered=True)
    classifier = cfg.classifier if cfg and isinstance(cfg.classifier, str) else "head"
    weights = rules.load(timm_tables.network(classifier), opened.tensors, shapes(config))
    return Read(config, weights, TIMM.name, of_timm_folder(opened.config))


def _named_by_folder(stated: Mapping[str, Any]) -> Any:
    """Return the settings of the network that a folder of timm's names; None where none or a changed one is named."""
    name = stated.get("architecture")
    if not isinstance(name, str) or stated.get("model_args"):
        return None
    import timm

    return config_of(name) if timm.is_model(name) else None


def _heads(kind: _Kind, wanted: Any) -> int | None:
    """Return the heads that the file states, or those of the network the user names where its width agrees."""
    norm = rules.peek(kind.table, kind.tensors, "norm.weight")
    agrees = wanted is not None and norm is not None and wanted.width == len(norm)
    return kind.heads or (getattr(wanted, "heads", None) if agrees else None)


def _hint(config: Any) -> str:
    exact = infer.preset_of(config)
    if exact:
        return f"Its tensors have the shapes of {exact}: pass --model {exact}."
    return f"The nearest preset is {infer.nearest_preset(config)}."
