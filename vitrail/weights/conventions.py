"""The conventions of a source of weights, such as its preprocessing; they are stored with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import nextafter
from types import MappingProxyType
from typing import Any, Literal

from vitrail.data.preprocess import EIGHT_BITS, HALF, IMAGENET_MEAN, IMAGENET_STD
from vitrail.layers.block import Gelu
from vitrail.layers.position import Resize


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Preprocessing of a source in evaluation; values that it does not state are None.

    `mean` and `std` are relative to `scale`, the value that counts as 1; `fit` resizes to size / `crop_fraction` by
    `squash` (both sides), `crop` (the short side) or `pad` (the long side), and then takes the centre; `interpolation`
    is the source's name of its filter. `apart` are sentences on what the source does in another way, `bands` the names
    of its bands, () for colours.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image: tuple[int, int] | None = None
    fit: Literal["squash", "crop", "pad"] | None = None
    crop_fraction: float | None = None
    interpolation: str | None = None
    apart: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()
    scale: float = EIGHT_BITS


@dataclass(frozen=True, slots=True)
class Conventions:
    """Conventions of a source: its GELU, its interpolation of positions and, if known, its preprocessing."""

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
MAE = Conventions(
    "official",
    gelu="exact",
    resize="bicubic",
    preprocessing=Preprocessing(
        IMAGENET_MEAN, IMAGENET_STD, fit="crop", crop_fraction=224 / 256, interpolation="bicubic"
    ),
)
TIMESFORMER = Conventions(
    "official",
    gelu="exact",
    resize="nearest",
    preprocessing=Preprocessing(
        (0.45,) * 3, (0.225,) * 3, fit="crop", crop_fraction=1.0, interpolation="bilinear"
    ),
)
RF_DETR = Conventions(
    "official",
    gelu="exact",
    resize="bicubic_antialias",
    preprocessing=Preprocessing(
        IMAGENET_MEAN, IMAGENET_STD, fit="squash", crop_fraction=1.0, interpolation="bilinear"
    ),
)

DETR = Conventions(
    "official",
    gelu="exact",
    resize="bicubic",
    preprocessing=Preprocessing(
        IMAGENET_MEAN,
        IMAGENET_STD,
        image=(800, 1056),
        fit="squash",
        crop_fraction=1.0,
        interpolation="bilinear",
    ),
)


PILLOW = MappingProxyType({0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"})
"""Pillow's numbers of filters, which Hugging Face's files contain."""

TO_A_SQUARE = "Llava"
"""Hugging Face's processor that pads an image to a square with the mean colour, if `do_pad` is set."""

OF_OBJECTS = ("Detr", "RfDetr", "Eomt")
"""Hugging Face's processors for detectors and masks of objects, which keep the shape of an image."""

USUAL_SHAPE = 4 / 3
"""The long side of most photographs, as a multiple of the short one."""

STEP = 32
"""Pixels of which the side of a square input is a multiple."""

TO_THE_SHORT_SIDE = ("Bit", "CLIP", "ConvNext")
"""Hugging Face's processors for which a size of one number is the short side's; for the others it is both sides'."""


def of_timm(stated: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing that timm states for a set of weights, with timm's defaults."""
    size = stated.get("input_size") or (3, 224, 224)
    modes: Mapping[str, Literal["squash", "pad"]] = {"squash": "squash", "border": "pad"}
    return Preprocessing(
        tuple(stated.get("mean") or IMAGENET_MEAN),
        tuple(stated.get("std") or IMAGENET_STD),
        image=(size[1], size[2]),
        fit=modes.get(stated.get("crop_mode") or "center", "crop"),
        crop_fraction=stated.get("crop_pct") or 0.875,
        interpolation=stated.get("interpolation") or "bicubic",
    )


NO_CLASS = "N/A"
"""What COCO's list of 91 classes has in place of those that no image shows."""

STATED = ("input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation")
"""Keys of the preprocessing in a config.json of timm; one of them is enough."""


def of_timm_folder(config: Mapping[str, Any]) -> Preprocessing | None:
    """Return the preprocessing in the config.json of a timm folder, new or old, or None for other files."""
    stated = config.get("pretrained_cfg") or config
    if "architecture" not in config or not any(stated.get(name) for name in STATED):
        return None
    found = of_timm(stated)
    size = (config.get("model_args") or {}).get("img_size")
    if stated.get("input_size") or size is None:
        return found if stated.get("input_size") else replace(found, image=None)
    return replace(found, image=(size, size) if isinstance(size, int) else tuple(size))


def of_own(stated: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing in a model file of vitrail."""
    return Preprocessing(
        tuple(stated["mean"]),
        tuple(stated["std"]),
        tuple(stated["size"]),
        stated["fit"],
        stated.get("crop_fraction"),
        stated.get("interpolation", "bicubic"),
        bands=tuple(str(name) for name, *_ in stated.get("bands", ())),
        scale=stated.get("scale", EIGHT_BITS),
    )


def of_converted(stated: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing in the header of a file that vitrail wrote in another layout."""
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in stated.items()
    }
    return Preprocessing(**values)


def of_hub(config: Mapping[str, Any]) -> Preprocessing | None:
    """Return the preprocessing in a preprocessor_config.json, or None if it states no mean."""
    if "image_mean" not in config:
        return None
    mean, std = config["image_mean"], config["image_std"]
    if not config.get("do_normalize", True):
        mean, std = [0.0] * len(mean), [1.0] * len(std)
    scale = 255 * config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 255
    found = Preprocessing(
        tuple(one / scale for one in mean),
        tuple(one / scale for one in std),
        interpolation=PILLOW.get(config.get("resample", -1)),
    )
    kind = config.get("image_processor_type") or config.get("feature_extractor_type") or ""
    if kind.startswith(OF_OBJECTS):
        return _of_objects(found, config)
    edge = _edge(config.get("size"), kind.startswith(TO_THE_SHORT_SIDE))
    if kind.startswith("ConvNext") and edge is not None:
        return _of_convnext(found, edge, config.get("crop_pct") or 224 / 256)
    if not config.get("do_center_crop"):
        size = _size(config.get("size")) if edge is None else None
        return replace(found, image=size, fit="squash", crop_fraction=1.0) if size else found
    shown, whole = _size(config.get("crop_size")), _size(config.get("size"))
    if shown is None or not config.get("do_resize", True):
        return replace(found, image=shown)
    if edge is not None:
        padded = kind.startswith(TO_A_SQUARE) and config.get("do_pad")
        fit: Literal["pad", "crop"] = "pad" if padded else "crop"
        return replace(found, image=shown, fit=fit, crop_fraction=_fraction(shown[0], edge))
    fraction = _fraction(shown[0], whole[0]) if whole else None
    return replace(found, image=shown, fit="squash" if whole else "crop", crop_fraction=fraction)


def _of_objects(found: Preprocessing, config: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing of a detector: squashed, or with its shape on a square input, as large as is usual."""
    size = config.get("size") or {"shortest_edge": 800, "longest_edge": 1333}
    if isinstance(size, int):
        size = {"shortest_edge": size, "longest_edge": config.get("max_size")}
    if "height" in size:
        return replace(found, image=(size["height"], size["width"]), fit="squash", crop_fraction=1.0)
    if "max_height" in size:
        return replace(found, image=(size["max_height"], size["max_width"]), fit="pad", crop_fraction=1.0)
    short, long = size["shortest_edge"], size.get("longest_edge")
    if short == long:
        apart = ("its authors add black below or at the right; here the mean colour is added on both sides",)
        return replace(found, image=(long, long), fit="pad", crop_fraction=1.0, apart=apart)
    if config.get("do_split_image"):
        apart = (
            f"its authors cut an image with a short side of {short} px into squares; here all of it is one input",
        )
        return replace(found, image=(short, short), fit="pad", crop_fraction=1.0, apart=apart)
    side = round(short * USUAL_SHAPE / STEP) * STEP
    limit = f", the long one to at most {long}" if long else ""
    line = f"its authors resize the short side to {short} px{limit}; here the long side has {side} px"
    return replace(found, image=(side, side), fit="pad", crop_fraction=1.0, apart=(line,))


def _of_convnext(found: Preprocessing, edge: int, share: float) -> Preprocessing:
    """Return the preprocessing of ConvNeXt's and ResNet's processor: large inputs are stretched, others cropped."""
    if edge >= 384:
        return replace(found, image=(edge, edge), fit="squash", crop_fraction=1.0)
    return replace(found, image=(edge, edge), fit="crop", crop_fraction=share)


def labels_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the class names in a config.json of timm or transformers, in order; () without names.

    Numbers without a name, as COCO's list has, are `NO_CLASS`.
    """
    cfg = config.get("pretrained_cfg") or {}
    names = config.get("label_names") or cfg.get("label_names") or config.get("labels")
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return tuple(names)
    numbered = config.get("id2label")
    if not isinstance(numbered, Mapping) or any(str(name).startswith("LABEL_") for name in numbered.values()):
        return ()
    by_number = {int(number): str(name) for number, name in numbered.items() if str(number).isdigit()}
    if len(by_number) < len(numbered) or not by_number:
        return ()
    return tuple(by_number.get(number, NO_CLASS) for number in range(max(by_number) + 1))


def licence_of(config: Mapping[str, Any]) -> str | None:
    """Return the licence in a config.json of timm, or None."""
    cfg = config.get("pretrained_cfg") or {}
    licence = cfg.get("license") if isinstance(cfg, Mapping) else None
    return licence if isinstance(licence, str) and licence else None


def _edge(size: Any, short: bool) -> int | None:
    """Return the target length of the short side, or None if each side has its own."""
    if isinstance(size, Mapping):
        edge: int | None = size.get("shortest_edge")
        return edge
    return size if short and isinstance(size, int) else None


def _fraction(shown: int, whole: int) -> float:
    """Return the visible share of `whole`, such that int(visible / share) equals `whole`."""
    share = shown / whole
    return share if int(shown / share) == whole else nextafter(share, 0)


def _size(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    if isinstance(value, Mapping) and "height" in value:
        return value["height"], value["width"]
    return None
