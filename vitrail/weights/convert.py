"""Convert weights from the layout of one source to that of another; the values stay bit-equal."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from vitrail.core.errors import UnknownNameError, WeightsError
from vitrail.core.files import replace
from vitrail.models.mae import TASK as PRETRAIN
from vitrail.weights import dit_files, keras_files, mae_files, rules
from vitrail.weights.pretrained import Pretrained, from_path
from vitrail.weights.read_request import CLASSIFY, CONVERTED
from vitrail.weights.rules import Table
from vitrail.weights.tables import (
    clip,
    detr,
    dit,
    eomt,
    google,
    huggingface,
    keras,
    mae,
    official,
    rf_detr,
    timesformer,
    timm,
)

Layout = Literal["vitrail", "google", "timm", "huggingface", "official", "keras"]

SUFFIXES: Mapping[str, str] = MappingProxyType({"google": ".npz", "keras": ".h5"})
"""Suffix of the files of a layout, if it is not .safetensors."""


def convert(
    source: Path,
    out: Path,
    *,
    to: str = "vitrail",
    model: str | None = None,
    network: Mapping[str, Any] = MappingProxyType({}),
) -> Pretrained:
    """Read weights of any known layout, write them in another one, and return the weights.

    `model` and `network` state what the weights do not contain. Settings that do not follow from the tensors are
    stored in the header of a .safetensors file, for reading it again.

    `google` writes an .npz file, `keras` an .h5 file, the other layouts a .safetensors file. Raise WeightsError
    if the layout does not support the network, or if the suffix of the file does not match its format.
    """
    if to not in get_args(Layout):
        known = get_args(Layout)
        raise UnknownNameError("layout", to, known, f"There are: {', '.join(known)}.")
    suffix = SUFFIXES.get(to, ".safetensors")
    if out.suffix != suffix:
        raise WeightsError(
            f"Weights for {to} are stored in a {suffix} file; use this suffix for the output, not {out.name}."
        )
    found = dit_files.without_autoencoder(from_path(source, model, network))
    if to == "vitrail":
        _write_own(found, out)
        return found
    found = _as_supported(found, to)
    tensors = rules.save(
        table_for(found.config, cast(Layout, to), found.head.keys()), found.encoder, found.head
    )
    if found.config.family == "eomt" and found.head:
        tensors |= eomt.constants(found.config, to, len(found.head["classes.bias"]) - 1)
    if found.config.family == "mae" and found.task == PRETRAIN:
        tensors = mae_files.whole(found.config, to, tensors)
    if found.config.family == "dit":
        tensors = dit_files.whole(found.config, to, tensors)
    if found.config.family == "clip":
        tensors = clip.published(tensors, to)
    if to == "google":
        replace(out, lambda temporary: _write_npz(tensors, temporary))
    elif to == "keras":
        replace(
            out, lambda temporary: keras_files.write(temporary, found.config, tensors, found.preprocessing)
        )
    else:
        metadata = {"format": "pt", CONVERTED: _header(found)}
        replace(out, lambda temporary: save_file(tensors, temporary, metadata=metadata))
    return found


def table_for(config: Any, layout: Layout, head: Collection[str] = ()) -> Table:
    """Return the table that writes a network, with a head of these tensors, in a layout.

    Raise WeightsError if the layout does not support it.
    """
    tables: Mapping[tuple[str, str], Table | None] = {
        ("vit", "google"): google.vit(getattr(config, "heads", 1)),
        ("vit", "timm"): _timm_vit(config),
        ("vit", "huggingface"): huggingface.VIT,
        ("dinov2", "timm"): timm.DINOV2,
        ("deit", "timm"): timm.DEIT_DISTILLED if "dist" in getattr(config, "prefix", ()) else timm.DEIT,
        ("deit", "huggingface"): _hub_deit(config, head),
        ("swin", "huggingface"): huggingface.SWIN,
        **{("clip", name): clip.written(name, head) for name in ("official", "huggingface", "timm")},
        ("mixer", "google"): google.MIXER,
        ("mixer", "timm"): timm.MIXER,
        ("t2t", "official"): _official_t2t(config),
        ("swin", "official"): official.SWIN,
        ("supervit", "official"): official.SUPERVIT,
        ("vvt", "official"): official.VVT,
        ("wetmapformer", "keras"): keras.table(config) if config.family == "wetmapformer" else None,
        ("detr", "official"): detr.table(hub=False, masks="masks.last.weight" in head),
        ("detr", "huggingface"): detr.table(hub=True, masks="masks.last.weight" in head),
        **{("rf_detr", name): rf_detr.table() for name in ("official", "huggingface")},
        ("swin", "timm"): official.SWIN_TIMM,
        ("dinov2", "huggingface"): _hub_dinov2(config),
        ("eomt", "huggingface"): _hub_eomt(config),
        ("eomt", "official"): eomt.official(getattr(config, "upscales", 0)),
        ("mae", "official"): mae.OFFICIAL if "mask" in head else mae.ENCODER,
        ("mae", "timm"): mae.ENCODER,
        ("mae", "huggingface"): _hub_mae(config, head),
        ("timesformer", "official"): _timesformer(config, "official"),
        ("timesformer", "huggingface"): _timesformer(config, "huggingface"),
        **{("dit", name): one for name, one in dit.WRITTEN.items()},
    }
    table = tables.get((config.family, layout))
    if isinstance(getattr(config, "patch", None), tuple):
        raise WeightsError(
            f"The layout of {layout} does not support overlapping patches; use --to vitrail for this network."
        )
    if table is None or (layout == "huggingface" and getattr(config, "stem", None)):
        raise WeightsError(
            f"The layout of {layout} does not support this {config.family}; choose another layout."
        )
    return table


def _timm_vit(config: Any) -> Table:
    stem = getattr(config, "stem", ())
    return timm.VIT if not stem else timm.HYBRID if len(stem) > 1 else timm.HYBRID_ROOT


def _official_t2t(config: Any) -> Table:
    performer = getattr(config, "tokens", "") == "performer"
    return official.T2T_PERFORMER if performer else official.T2T_TRANSFORMER


def _hub_deit(config: Any, head: Collection[str]) -> Table:
    if "dist" not in getattr(config, "prefix", ()):
        return (
            huggingface.VIT
        )  # without the distillation token, DeiT's files are those of a ViT there as well
    return huggingface.DEIT_TEACHER if "dist.weight" in head else huggingface.DEIT


def _hub_dinov2(config: Any) -> Table:
    return huggingface.DINOV2_SWIGLU if getattr(config, "mlp", "") == "swiglu" else huggingface.DINOV2


def _hub_mae(config: Any, head: Collection[str]) -> Table | None:
    if getattr(config, "pooled", False):  # there it has no norm after the mean
        return None
    return mae.HUB if "mask" in head else mae.HUB_ENCODER


def _timesformer(config: Any, layout: Layout) -> Table | None:
    """Return the table for a TimeSformer; transformers has no other without attention over time."""
    if layout == "official":
        return timesformer.OFFICIAL
    return None if getattr(config, "attention", "") == "space" else timesformer.HUB_WRITTEN


def _hub_eomt(config: Any) -> Table:
    return eomt.hub(
        getattr(config, "upscales", 0), "apart" if getattr(config, "mlp", "") == "swiglu" else "gelu"
    )


def _as_supported(found: Pretrained, to: str) -> Pretrained:
    """Return the weights without the decoder of their pretraining, if only vitrail's own layout has a place for it."""
    if found.task != PRETRAIN or (found.config.family == "mae" and to in ("official", "huggingface")):
        return found
    line = f"the decoder of its pretraining is left aside: the layout of {to} has no place for it"
    return dataclasses.replace(found, head={}, task=CLASSIFY, settings={}, assumed=(*found.assumed, line))


def _write_own(found: Pretrained, out: Path) -> None:
    tensors = {f"encoder.{name}": tensor for name, tensor in found.encoder.items()}
    tensors |= {f"head.{name}": tensor for name, tensor in found.head.items()}
    metadata = {"vitrail_encoder": _header(found)}
    replace(out, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def _header(found: Pretrained) -> str:
    """Return what does not follow from the tensors: settings, task, preprocessing, pool of the classifier, licence."""
    header = {
        "encoder": {"family": found.config.family, "config": asdict(found.config)},
        "preprocessing": found.preprocessing and asdict(found.preprocessing),
        "task": {
            "name": found.task,
            "labels": list(found.labels),
            "things": list(found.things),
            "settings": dict(found.settings),
        },
        "pool": found.pool,
        "source": found.source,
        "licence": found.licence,
    }
    return json.dumps(header)


def _write_npz(tensors: Mapping[str, Tensor], path: Path) -> None:
    with path.open("wb") as handle:  # with a file name instead, NumPy would add its own suffix
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
        np.savez(handle, **arrays)
