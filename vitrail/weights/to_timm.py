"""Convert a network of ours to timm."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from vitrail.weights import rules
from vitrail.weights.convert import table_for
from vitrail.weights.library_mapping import (
    BOTH,
    TIMM,
    Foreign,
    Settings,
    Tensors,
    UnsupportedByLibraryError,
    head_of,
    hidden_of,
    placed,
    plain,
    pool_of,
    ratio_for,
    scaled,
    with_rows,
)
from vitrail.weights.rules import Table
from vitrail.weights.tables import timm as tables

if TYPE_CHECKING:
    from vitrail.runs.network import Network

POOLS: Mapping[str, str] = MappingProxyType({"cls": "token", "mean": "avg", "attention": "map"})

MIXERS: Mapping[tuple[int, int, int], str] = MappingProxyType(
    {
        (32, 8, 512): "mixer_s32_224",
        (16, 8, 512): "mixer_s16_224",
        (32, 12, 768): "mixer_b32_224",
        (16, 12, 768): "mixer_b16_224",
        (32, 24, 1024): "mixer_l32_224",
        (16, 24, 1024): "mixer_l16_224",
    }
)
"""Patch, depth and width of timm's Mixers → their names; timm has no other Mixers."""


def for_timm(network: Network, temperature: float = 1.0) -> Foreign:
    """Return timm's `architecture` and `model_args` for a network, and its tensors, with logits over the temperature.

    Raise UnsupportedByLibraryError if timm has no network with the same outputs.
    """
    config: Any = network.encoder.config
    pool = pool_of(network, TIMM)
    state: Tensors = dict(network.encoder.state_dict())
    match config.family:
        case "timm":
            settings, table = _own(network, pool)
        case "vit" | "deit" | "dinov2" | "mae":
            settings = _column(config, pool)
            state, table = _places(config, state), table_for(config, "timm")
        case "swin":
            settings, table = _swin(config, pool), table_for(config, "timm")
        case "mixer":
            settings, table = _mixer(config, pool), table_for(config, "timm")
        case family:
            raise UnsupportedByLibraryError(TIMM, family, "it has no such network")
    return Foreign(settings, rules.save(table, state, head_of(network, temperature)))


def _own(network: Network, pool: str) -> tuple[Settings, Table]:
    encoder: Any = network.encoder
    name, classifier = encoder.config.name.split(".")[0], encoder.net.pretrained_cfg.get("classifier")
    if encoder.config.eps:
        raise UnsupportedByLibraryError(
            TIMM, name, f"its own norms do not add {', '.join(map(str, encoder.config.eps.values()))}"
        )
    if not isinstance(classifier, str) or pool != "own":
        raise UnsupportedByLibraryError(TIMM, name, f"its own has another head than one that reads {pool!r}")
    import timm

    settings = dict(encoder.settings)
    with torch.device("meta"):
        whole = timm.create_model(name, num_classes=2, **settings)
    convolution = whole.get_parameter(f"{classifier}.weight").ndim == 4
    return {"architecture": name, "model_args": settings}, tables.network(classifier, convolution)


def _column(config: Any, pool: str) -> Settings:
    plain(config, TIMM)
    pooled = getattr(config, "pooled", False)
    if pooled and pool != "own":
        raise UnsupportedByLibraryError(
            TIMM, config.family, f"its own reads the normalised mean, not {pool!r}"
        )
    pool = "mean" if pooled else pool
    _reads(config, pool)
    if config.norm_eps != 1e-6:
        raise UnsupportedByLibraryError(TIMM, config.family, f"its norms add 1e-6, not {config.norm_eps}")
    gated, registers = getattr(config, "mlp", "gelu") == "swiglu", getattr(config, "registers", 0)
    arguments: Settings = {
        "img_size": list(config.size),
        "patch_size": config.patch,
        "in_chans": config.channels,
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
        "mlp_ratio": ratio_for(2 * hidden_of(config) if gated else hidden_of(config), config.width),
        "class_token": bool(placed(config)),
        "no_embed_class": pool != BOTH and (bool(registers) or config.position == "1d_patches"),
        "global_pool": POOLS.get(pool, "token"),
        "fc_norm": pooled,
    }
    if not gated:  # a gated MLP has another activation
        arguments["act_layer"] = "gelu_tanh" if getattr(config, "gelu", "exact") == "tanh" else "gelu"
    if registers:
        arguments["reg_tokens"] = registers
    if pool == "attention":
        arguments["pool_include_prefix"] = True
    if scaled(config):
        arguments["init_values"] = config.layer_scale
    # JSON cannot contain classes, so a timm name that uses them is needed.
    name = "vit_giant_patch14_dinov2" if gated else "vit_base_patch16_224"
    return {
        "architecture": "deit_base_distilled_patch16_224" if pool == BOTH else name,
        "model_args": arguments,
    }


def _reads(config: Any, pool: str) -> None:
    """Raise UnsupportedByLibraryError for a classifier that timm's ViT does not have."""
    if pool != BOTH and ("dist" in placed(config) or pool not in POOLS):
        raise UnsupportedByLibraryError(TIMM, config.family, f"its own has no head that reads {pool!r}")
    exact = getattr(config, "gelu", "exact") == "exact" and getattr(config, "mlp", "gelu") == "gelu"
    alike = exact and hidden_of(config) == 4 * config.width and config.width == 64 * config.heads
    if pool == "attention" and not alike:
        why = "its pool attends with the heads and the MLP of a block, ours with heads of 64 and 4 widths"
        raise UnsupportedByLibraryError(TIMM, config.family, why)


def _places(config: Any, state: Tensors) -> Tensors:
    """Return the state with timm's positions: with registers only for patches, with two heads for all tokens."""
    if "dist" in placed(config):
        return with_rows(config, state)
    if not getattr(config, "registers", 0) or config.position == "1d_patches":
        return state
    table = state["position.table"]
    return state | {"prefix.tokens": state["prefix.tokens"] + table[:, :1], "position.table": table[:, 1:]}


def _swin(config: Any, pool: str) -> Settings:
    grids = [config.grid(stage) for stage in range(len(config.depths))]
    if config.position != "relative":
        raise UnsupportedByLibraryError(TIMM, "swin", "its own has relative positions alone")
    if pool != "mean" or config.norm_eps != 1e-5:
        raise UnsupportedByLibraryError(
            TIMM, "swin", "its own reads the mean ('--pool mean'), with norms that add 1e-5"
        )
    if any(min(grid) <= config.window < max(grid) for grid in grids):
        why = f"where one side of a grid is within a window of {config.window}, it shifts the other side"
        raise UnsupportedByLibraryError(TIMM, "swin", why)
    arguments = {
        "img_size": list(config.size),
        "patch_size": config.patch,
        "in_chans": config.channels,
        "embed_dim": config.width,
        "depths": list(config.depths),
        "num_heads": list(config.heads),
        "window_size": config.window,
        "mlp_ratio": config.hidden,
    }
    return {"architecture": "swin_tiny_patch4_window7_224", "model_args": arguments}


def _mixer(config: Any, pool: str) -> Settings:
    name = MIXERS.get((config.patch, config.depth, config.width))
    if name is None:
        raise UnsupportedByLibraryError(TIMM, "mixer", "it builds S, B and L with patches of 16 and 32 alone")
    if pool != "mean" or config.gelu != "exact" or config.norm_eps != 1e-6:
        raise UnsupportedByLibraryError(
            TIMM, "mixer", "its own reads the mean, has the exact GELU and norms that add 1e-6"
        )
    ratios = [ratio_for(hidden, config.width) for hidden in (config.places, config.hidden)]
    arguments = {"img_size": list(config.size), "in_chans": config.channels, "mlp_ratio": ratios}
    return {"architecture": name, "model_args": arguments}
