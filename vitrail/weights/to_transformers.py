"""Convert a network of ours to transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vitrail.weights import rules
from vitrail.weights.convert import table_for
from vitrail.weights.library_mapping import (
    BOTH,
    HUB,
    Foreign,
    Settings,
    Tensors,
    UnsupportedByLibraryError,
    head_of,
    hidden_of,
    placed,
    plain,
    pool_of,
    scaled,
    with_rows,
)
from vitrail.weights.tables import huggingface

if TYPE_CHECKING:
    from vitrail.runs.network import Network


def for_transformers(network: Network, temperature: float = 1.0) -> Foreign:
    """Return transformers' config.json for a network, and its tensors, with logits over the temperature.

    Raise UnsupportedByLibraryError if transformers has no network with the same outputs.
    """
    config: Any = network.encoder.config
    pool, head = pool_of(network, HUB), head_of(network, temperature)
    state: Tensors = dict(network.encoder.state_dict())
    unread: Tensors = {}
    match config.family:
        case "vit" | "deit" | "mae" if not scaled(config):
            settings, table = _column(config, pool), table_for(config, "huggingface", head.keys())
            state = with_rows(config, state)
        case "deit" | "dinov2":
            settings = _dinov2(config, pool)
            # In transformers a DeiT III is a DINOv2: a ViT with layer scale.
            table = table_for(config, "huggingface") if config.family == "dinov2" else huggingface.DINOV2
            state, head = with_rows(config, state), _beside_the_mean(pool, head)
            unread = {"embeddings.mask_token": torch.zeros(1, config.width)}  # used only in pretraining
        case "swin":
            settings, table = _swin(config, pool), table_for(config, "huggingface")
        case family:
            raise UnsupportedByLibraryError(HUB, family, "it takes ViT, DeiT, DINOv2 and Swin alone")
    body = {f"{settings['model_type']}.{k}": t for k, t in (rules.save(table, state) | unread).items()}
    return Foreign(settings, body | rules.save(table, {}, head))


def _settings(config: Any, model_type: str, kind: str) -> Settings:
    return {
        "architectures": [kind],
        "model_type": model_type,
        "hidden_act": "gelu" if getattr(config, "gelu", "exact") == "exact" else "gelu_pytorch_tanh",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": config.norm_eps,
        "image_size": config.size[0] if config.size[0] == config.size[1] else list(config.size),
        "patch_size": config.patch,
        "num_channels": config.channels,
        "qkv_bias": True,
    }


def _blocks(config: Any) -> Settings:
    return {
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
    }


def _column(config: Any, pool: str) -> Settings:
    plain(config, HUB)
    if pool not in ("cls", BOTH):
        raise UnsupportedByLibraryError(
            HUB, config.family, f"its own reads the class token (--pool cls), not {pool!r}"
        )
    kinds = {
        "vit": "ViTForImageClassification",
        "deit": "DeiTForImageClassification" + ("WithTeacher" if pool == BOTH else ""),
    }
    model_type = "deit" if "dist" in placed(config) else "vit"
    said = _settings(config, model_type, kinds[model_type])
    return {**said, **_blocks(config), "intermediate_size": hidden_of(config)}


def _dinov2(config: Any, pool: str) -> Settings:
    plain(config, HUB)
    gated, registers = getattr(config, "mlp", "gelu") == "swiglu", getattr(config, "registers", 0)
    if placed(config) != ("cls",) or pool not in ("cls", "mean", "cls_mean"):
        raise UnsupportedByLibraryError(
            HUB, config.family, "its own reads the class token and the mean of the patches"
        )
    if config.size[0] != config.size[1]:
        raise UnsupportedByLibraryError(HUB, config.family, "its own is made for square images")
    ratio = 4 if gated else hidden_of(config) // config.width
    # It uses two thirds of the width for a gated MLP, rounded up to a multiple of eight.
    hidden = (ratio * config.width * 2 // 3 + 7) // 8 * 8 if gated else ratio * config.width
    if hidden != hidden_of(config):
        raise UnsupportedByLibraryError(
            HUB, config.family, f"its own has an MLP of {hidden} numbers, not {hidden_of(config)}"
        )
    model_type, kind = ("dinov2_with_registers", "Dinov2WithRegisters") if registers else ("dinov2", "Dinov2")
    said = _settings(config, model_type, f"{kind}ForImageClassification") | _blocks(config)
    counted = {"num_register_tokens": registers} if registers else {}
    return {**said, "mlp_ratio": ratio, "use_swiglu_ffn": gated, **counted}


def _swin(config: Any, pool: str) -> Settings:
    if pool != "mean" or config.norm_eps != 1e-5:
        raise UnsupportedByLibraryError(
            HUB, "swin", "its own reads the mean ('--pool mean'), with norms that add 1e-5"
        )
    if any(config.window_of(stage) != config.window for stage in range(len(config.depths))):
        raise UnsupportedByLibraryError(
            HUB, "swin", f"none of its grids is smaller than the window of {config.window}"
        )
    return {
        **_settings(config, "swin", "SwinForImageClassification"),
        "embed_dim": config.width,
        "depths": list(config.depths),
        "num_heads": list(config.heads),
        "window_size": config.window,
        "mlp_ratio": config.hidden,
        "use_absolute_embeddings": config.position == "absolute",
    }


def _beside_the_mean(pool: str, head: Tensors) -> Tensors:
    """Return the classifier of class token and mean of the patches, with zeros for features it does not read."""
    weight = head["linear.weight"]
    nothing = torch.zeros_like(weight)
    parts = {"cls": [weight, nothing], "mean": [nothing, weight]}.get(pool, [weight])
    return head | {"linear.weight": torch.cat(parts, 1)}
