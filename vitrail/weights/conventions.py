"""What a source of weights takes for granted: it travels with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vitrail.layers.block import Gelu
from vitrail.layers.position import Resize

HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a source prepares pictures for evaluation; what it does not say is None.

    `mean` and `std` are in parts of 255; `fit` is `squash` (stretched to the size) or `crop` (the short side
    to size / `crop_fraction`, then the centre); `interpolation` is the source's word for its resize.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image: tuple[int, int] | None = None
    fit: Literal["squash", "crop"] | None = None
    crop_fraction: float | None = None
    interpolation: str | None = None


@dataclass(frozen=True, slots=True)
class Conventions:
    """How a source computes: its GELU, how it stretches positions, and, where known, its preprocessing."""

    name: str
    gelu: Gelu
    resize: Resize
    preprocessing: Preprocessing | None = None


GOOGLE = Conventions(
    "google",
    gelu="tanh",
    resize="bilinear_corners",
    preprocessing=Preprocessing(HALF, HALF, fit="squash", crop_fraction=1.0, interpolation="bilinear"),
)
TIMM = Conventions("timm", gelu="exact", resize="bicubic_antialias")
OFFICIAL = Conventions("official", gelu="exact", resize="bicubic")
HUGGINGFACE = Conventions("huggingface", gelu="exact", resize="bicubic")


def of_timm(cfg: Any) -> Preprocessing:
    """Return the preprocessing that timm states for a set of weights."""
    return Preprocessing(
        tuple(cfg.mean),
        tuple(cfg.std),
        image=(cfg.input_size[1], cfg.input_size[2]),
        fit="squash" if cfg.crop_mode == "squash" else "crop",
        crop_fraction=cfg.crop_pct,
        interpolation=cfg.interpolation,
    )


def of_hub(config: Mapping[str, Any]) -> Preprocessing | None:
    """Return what a preprocessor_config.json says, or None where it says no mean."""
    if "image_mean" not in config:
        return None
    shown = config.get("crop_size") if config.get("do_center_crop") else config.get("size")
    size = _size(shown)
    fraction = None
    if config.get("do_center_crop") and size and isinstance(config.get("size"), Mapping):
        edge = config["size"].get("shortest_edge")
        fraction = size[0] / edge if edge else None
    return Preprocessing(
        tuple(config["image_mean"]),
        tuple(config["image_std"]),
        image=size,
        fit="crop" if config.get("do_center_crop") else "squash",
        crop_fraction=fraction,
        # The file holds Pillow's number of the filter.
        interpolation={0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}.get(
            config.get("resample", -1)
        ),
    )


def _size(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    if isinstance(value, Mapping) and "height" in value:
        return value["height"], value["width"]
    return None
