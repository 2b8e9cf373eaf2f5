"""Read a config.json of transformers: which of our networks, or which network of timm, has these weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vitrail.core.errors import WeightsError
from vitrail.layers.block import Gelu
from vitrail.models.timm_wrapper import TimmConfig
from vitrail.weights.library_mapping import ratio_for
from vitrail.weights.rules import Table
from vitrail.weights.stated_config import Said
from vitrail.weights.tables import through_timm as tables

Config = Mapping[str, Any]

_ViT = {"num_attention_heads": 12, "image_size": 224, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
_TOWER = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
}

DEFAULTS: Mapping[str, Config] = MappingProxyType(
    {
        "vit": _ViT,
        "vit_mae": {**_ViT, "decoder_num_attention_heads": 16, "mask_ratio": 0.75, "norm_pix_loss": False},
        "vit_msn": {**_ViT, "layer_norm_eps": 1e-6},
        "deit": _ViT,
        "dinov2": {**_ViT, "layer_norm_eps": 1e-6},
        "dinov2_with_registers": {**_ViT, "layer_norm_eps": 1e-6},
        "swin": {"image_size": 224, "hidden_act": "gelu", "layer_norm_eps": 1e-5},
        "clip_vision_model": {
            **_TOWER, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
        },
        "siglip_vision_model": {
            **_TOWER, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
        },
        "dinov3_vit": {
            "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 6,
            "num_channels": 3, "image_size": 224, "patch_size": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-5,
            "num_register_tokens": 0, "rope_theta": 100.0, "use_gated_mlp": False, "query_bias": True,
            "key_bias": False, "value_bias": True, "proj_bias": True, "mlp_bias": True,
        },
        "beit": {
            **_TOWER, "patch_size": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "layer_scale_init_value": 0.1,
            "use_absolute_position_embeddings": False, "use_relative_position_bias": False,
            "use_shared_relative_position_bias": False,
        },
        "swinv2": {
            "embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7, "mlp_ratio": 4.0,
            "num_channels": 3, "image_size": 224, "patch_size": 4, "hidden_act": "gelu", "layer_norm_eps": 1e-5,
            "pretrained_window_sizes": [0, 0, 0, 0], "use_absolute_embeddings": False, "qkv_bias": True,
        },
        "resnet": {
            "embedding_size": 64, "hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3], "num_channels": 3,
            "layer_type": "bottleneck", "hidden_act": "relu", "downsample_in_first_stage": False,
            "downsample_in_bottleneck": False,
        },
        "convnext": {
            "hidden_sizes": [96, 192, 384, 768], "depths": [3, 3, 9, 3], "num_channels": 3, "patch_size": 4,
            "hidden_act": "gelu", "layer_norm_eps": 1e-12, "layer_scale_init_value": 1e-6,
        },
        "convnextv2": {
            "hidden_sizes": [96, 192, 384, 768], "depths": [3, 3, 9, 3], "num_channels": 3, "patch_size": 4,
            "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        },
        "rf_detr": {
            "d_model": 256, "decoder_layers": 3, "decoder_ffn_dim": 2048, "decoder_n_points": 4, "group_detr": 13,
            "num_queries": 300, "decoder_self_attention_heads": 8, "decoder_cross_attention_heads": 16,
            "num_feature_levels": 1, "c2f_num_blocks": 3, "hidden_expansion": 0.5, "activation_function": "silu",
            "decoder_activation_function": "relu", "mask_downsample_ratio": 4, "layer_norm_eps": 1e-5,
            "backbone_config": {
                "model_type": "rf_detr_dinov2", "hidden_size": 384, "num_attention_heads": 6, "image_size": 518,
                "out_features": ["stage2", "stage5", "stage8", "stage11"],
            },
        },
        "rf_detr_dinov2": {
            "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "gelu",
            "layer_norm_eps": 1e-6, "image_size": 224, "patch_size": 14, "num_channels": 3, "num_windows": 4,
        },
        "detr": {
            "d_model": 256, "num_queries": 100, "num_channels": 3, "encoder_layers": 6, "encoder_ffn_dim": 2048,
            "encoder_attention_heads": 8, "decoder_layers": 6, "decoder_ffn_dim": 2048, "decoder_attention_heads": 8,
            "activation_function": "relu", "position_embedding_type": "sine", "dilation": False, "backbone": "resnet50",
        },
        "timesformer": {
            **_TOWER, "patch_size": 16, "num_frames": 8, "hidden_act": "gelu", "layer_norm_eps": 1e-6,
            "attention_type": "divided_space_time",
        },
        "eomt": {
            "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "hidden_act": "gelu",
            "layer_norm_eps": 1e-6, "image_size": 640, "patch_size": 16, "num_channels": 3, "num_blocks": 4,
            "num_queries": 200, "num_upscale_blocks": 2, "num_register_tokens": 4,
        },
    }
)  # fmt: skip
"""Defaults of transformers for values missing in a config.json, by `model_type`, for each supported type."""

DETECTORS = ("rf_detr", "detr", "eomt")
"""Types with a head of boxes or masks."""

PAGES = (
    "vit",
    "vit_mae",
    "vit_msn",
    "deit",
    "dinov2",
    "dinov2_with_registers",
    "swin",
    "clip_vision_model",
    "timesformer",
    *DETECTORS,
)
"""Types that are read as networks of ours."""

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "eomt_dinov3": "is an EoMT on DINOv3, which is not supported: its column is another one, and files of its "
        "authors hold only differences from Meta's weights. Take one on DINOv2: vitrail weights 'eomt*'",
    }
)
"""Unsupported types → why."""

TOWERS: Mapping[str, str] = MappingProxyType({"clip": "clip_vision_model", "siglip": "siglip_vision_model"})
"""Types with two towers → the type of the image tower."""

GELUS: Mapping[str, Gelu] = MappingProxyType(
    {
        "gelu": "exact",
        "gelu_python": "exact",
        "gelu_new": "tanh",
        "gelu_fast": "tanh",
        "gelu_accurate": "tanh",
        "gelu_pytorch_tanh": "tanh",
        "gelu_python_tanh": "tanh",
        "quick_gelu": "quick",
    }
)
"""transformers' activations that are a GELU."""

ACTIVATIONS: Mapping[str, str] = MappingProxyType(
    {
        "exact": "gelu",
        "tanh": "gelu_tanh",
        "quick": "quick_gelu",
        "relu": "relu",
        "silu": "silu",
        "swish": "silu",
    }
)
"""Our GELUs, and transformers' other activations that timm has → timm's names."""

POOLS: Mapping[str, str] = MappingProxyType(
    {
        "vit": "cls",
        "deit": "cls",
        "dinov2": "cls_mean",
        "dinov2_with_registers": "cls_mean",
        "swin": "mean",
        "timesformer": "cls",
    }
)
"""The pool of the classifier of each type."""

SIGNS: Mapping[str, str] = MappingProxyType(
    {
        "vision_model.embeddings.class_embedding": "Hugging Face's CLIP",
        "vision_model.embeddings.position_embedding.weight": "Hugging Face's SigLIP",
        "embeddings.class_embedding": "Hugging Face's CLIP",
        "embeddings.position_embedding.weight": "Hugging Face's SigLIP",
        "continuous_position_bias_mlp": "Hugging Face's Swinv2",
        "layer.0.mlp.up_proj.weight": "Hugging Face's DINOv3",
        "encoder.layer.0.lambda_1": "Hugging Face's BEiT",
        "embedder.embedder.convolution.weight": "Hugging Face's ResNet",
        "encoder.stages.0.layers.0.dwconv.weight": "Hugging Face's ConvNeXt",
        "encoder.layers.encoder_layer_0.": "torchvision's ViT",
        "visual.class_embedding": "OpenAI's CLIP",
        "image_encoder.patch_embed.proj.weight": "SAM",
    }
)
"""Parts of tensor names that identify weights of other layouts without a config.json."""


def hub_type(stated: Config) -> str | None:
    """Return the `model_type` of a config.json of transformers, or None for other files."""
    kind = stated.get("model_type")
    return kind if isinstance(kind, str) and kind != "timm_wrapper" else None


def whole(stated: Config) -> dict[str, Any]:
    """Return the config.json of the image tower, completed with transformers' defaults, also those of its backbone."""
    kind = hub_type(stated) or ""
    if tower := TOWERS.get(kind):
        kind, stated = tower, stated.get("vision_config") or {}
    found = {**DEFAULTS.get(kind, {}), **stated, **({"model_type": kind} if kind else {})}
    backbone = found.get("backbone_config") or DEFAULTS.get(kind, {}).get("backbone_config")
    return {**found, "backbone_config": whole(backbone)} if backbone else found


def said_of(stated: Config) -> Said:
    """Return its settings that do not follow from the tensors of our network.

    For a detector these are the ones of its backbone, or, if that is convolutional, the heads of its own attention.
    Raise WeightsError if none of our networks computes in the same way.
    """
    if stated.get("model_type") == "detr":
        return Said("config.json", stated["encoder_attention_heads"])
    if stated.get("model_type") == "rf_detr":
        return said_of(stated["backbone_config"])
    act = stated.get("hidden_act", "gelu")
    if act not in GELUS:
        raise WeightsError(f"{called(stated)} has the activation {act!r}, which no network here has.")
    heads, size = stated.get("num_attention_heads"), _size(stated.get("image_size"))
    return Said(
        "config.json",
        heads if isinstance(heads, int) else None,
        sizes=(size,) if size else (),
        gelu=GELUS[act],
        norm_eps=stated.get("layer_norm_eps"),
        decoder_heads=stated.get("decoder_num_attention_heads"),
    )


def called(stated: Config) -> str:
    """Return a description of a network: its class and its type."""
    kinds = stated.get("architectures") or []
    kind = f" ({kinds[0]})" if kinds else ""
    return f"Hugging Face's {stated.get('model_type')!r}{kind}"


def refusal(stated: Config) -> WeightsError:
    """Return the error for a network of an unsupported type."""
    if why := REASONS.get(hub_type(stated) or ""):
        return WeightsError(f"{called(stated)} {why}")
    known = ", ".join(dict.fromkeys([*PAGES, *TOWERS, *THROUGH]))
    return WeightsError(
        f"{called(stated)} is not read. Of transformers' networks these are: {known}. Others may lie in timm's form at "
        "the hub: vitrail models '*' --timm"
    )


def sign(names: Collection[str]) -> str | None:
    """Return the origin of weights of an unsupported layout, by their tensor names."""
    return next((what for part, what in SIGNS.items() if any(_has(name, part) for name in names)), None)


def _has(name: str, part: str) -> bool:
    return name.startswith(part) or f".{part}" in name or f".{part}." in name


@dataclass(frozen=True, slots=True)
class Way:
    """How a type is read through timm: the table, and the network of timm.

    `same_head` is True if the classifiers of both networks read the same features.
    """

    table: Table
    network: Callable[[Config, Collection[str]], TimmConfig]
    same_head: bool = True


def _siglip(c: Config, names: Collection[str]) -> TimmConfig:
    pool = {} if "head.probe" in names else {"global_pool": "avg", "fc_norm": False}
    return _column(c, "vit_base_patch16_siglip_224", {"act_layer": _act(c), **pool})


def _dinov3(c: Config, names: Collection[str]) -> TimmConfig:
    _must(c, {"key_bias": False, "proj_bias": True, "mlp_bias": True, "value_bias": c["query_bias"]})
    _must(c, {"hidden_act": "silu" if c["use_gated_mlp"] else "gelu"})
    more = {
        "num_reg_tokens": c["num_register_tokens"],
        "rope_temperature": c["rope_theta"],
        "swiglu_mlp": c["use_gated_mlp"],
        "swiglu_align_to": 1,  # gate and value apart, in the width that is stated
        "qkv_bias": c["query_bias"],
        "global_pool": "token",
    }
    return _column(c, "vit_small_patch16_dinov3_qkvb", more)


def _beit(c: Config, names: Collection[str]) -> TimmConfig:
    _must(c, {"hidden_act": "gelu"})
    more = {
        "use_abs_pos_emb": c["use_absolute_position_embeddings"],
        "use_rel_pos_bias": c["use_relative_position_bias"],
        "use_shared_rel_pos_bias": c["use_shared_relative_position_bias"],
        "init_values": c["layer_scale_init_value"],
        "global_pool": "avg" if "pooler.layernorm.weight" in names else "token",
    }
    return _column(c, "beit_base_patch16_224", more)


def _swinv2(c: Config, names: Collection[str]) -> TimmConfig:
    _must(c, {"use_absolute_embeddings": False, "qkv_bias": True})
    settings = {
        "patch_size": c["patch_size"],
        "embed_dim": c["embed_dim"],
        "depths": list(c["depths"]),
        "num_heads": list(c["num_heads"]),
        "window_size": c["window_size"],
        "mlp_ratio": c["mlp_ratio"],
        "pretrained_window_sizes": list(c["pretrained_window_sizes"]),
        "act_layer": _act(c),
    }
    eps = {
        "layers.*.blocks.*": c["layer_norm_eps"],
        "norm": c["layer_norm_eps"],
    }  # the others add 1e-5 in any case
    return TimmConfig("swinv2_tiny_window8_256", _image(c), c["num_channels"], settings=settings, eps=eps)


def _resnet(c: Config, names: Collection[str]) -> TimmConfig:
    _must(
        c,
        {
            "hidden_act": "relu",
            "downsample_in_first_stage": False,
            "downsample_in_bottleneck": False,
            "embedding_size": 64,
        },
    )
    wide = 4 if c["layer_type"] == "bottleneck" else 1
    if len(c["depths"]) != 4:
        raise WeightsError(
            f"{called(c)} has {len(c['depths'])} stages, and timm's ResNet four; it is not read."
        )
    settings = {"layers": list(c["depths"]), "channels": [width // wide for width in c["hidden_sizes"]]}
    return TimmConfig("resnet50" if wide == 4 else "resnet18", None, c["num_channels"], settings=settings)


def _convnext(c: Config, names: Collection[str]) -> TimmConfig:
    version = "v2" if c["model_type"] == "convnextv2" else ""
    settings = {
        "depths": list(c["depths"]),
        "dims": list(c["hidden_sizes"]),
        "patch_size": c["patch_size"],
        "act_layer": _act(c),
    }
    if not version and not c["layer_scale_init_value"]:  # timm's second version has no factors, either
        version, settings["use_grn"] = "v2", False
    name, eps = f"convnext{version}_tiny", {"head.norm": c["layer_norm_eps"]}  # of the last norm alone
    return TimmConfig(name, None, c["num_channels"], settings=settings, eps=eps)


THROUGH: Mapping[str, Way] = MappingProxyType(
    {
        "siglip_vision_model": Way(tables.SIGLIP, _siglip, same_head=False),
        "dinov3_vit": Way(tables.DINOV3, _dinov3),
        "beit": Way(tables.BEIT, _beit),
        "swinv2": Way(tables.SWINV2, _swinv2),
        "resnet": Way(tables.RESNET, _resnet),
        "convnext": Way(tables.CONVNEXT, _convnext),
        "convnextv2": Way(tables.CONVNEXT, _convnext),
    }
)
"""Types that are read as networks of timm with the same tensors."""


def _column(c: Config, name: str, more: dict[str, Any]) -> TimmConfig:
    settings = {
        "patch_size": c["patch_size"],
        "embed_dim": c["hidden_size"],
        "depth": c["num_hidden_layers"],
        "num_heads": c["num_attention_heads"],
        "mlp_ratio": ratio_for(c["intermediate_size"], c["hidden_size"]),
        **more,
    }
    return TimmConfig(name, _image(c), c["num_channels"], settings=settings, eps={"*": c["layer_norm_eps"]})


def _image(c: Config) -> int | tuple[int, int]:
    size = _size(c["image_size"])
    if size is None:
        raise WeightsError(f"{called(c)} states image_size = {c['image_size']!r}, which is no size; mend it.")
    return size[0] if size[0] == size[1] else size


def _size(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    return (value[0], value[1]) if isinstance(value, list | tuple) and len(value) == 2 else None


def _act(c: Config) -> str:
    act = GELUS.get(c["hidden_act"], c["hidden_act"])
    if act not in ACTIVATIONS:
        raise WeightsError(
            f"{called(c)} has the activation {act!r}, which timm's network has not; it is not read."
        )
    return ACTIVATIONS[act]


def _must(c: Config, wanted: Mapping[str, Any]) -> None:
    """Raise WeightsError, with the setting, if timm's network computes differently."""
    for name, value in wanted.items():
        if c[name] != value:
            raise WeightsError(
                f"{called(c)} has {name} = {c[name]!r}, and timm's network {value!r}; it is not read."
            )
