"""Our preprocessing as configuration of other libraries, or the reason why they do not support it."""

from __future__ import annotations

from typing import Any

from vitrail.data.preprocess import Preprocess
from vitrail.export.words import COLOURS

RAW = (
    "{} only prepares 8-bit images, and this network takes the raw values of the file: prepare them yourself."
)


def timm_cannot(steps: Preprocess) -> str:
    """Return why timm's transform cannot do this preprocessing; "" if it can."""
    return RAW.format("timm") if steps.raw else ""


def transformers_cannot(steps: Preprocess) -> str:
    """Return why no processor of transformers can do this preprocessing; "" if one can."""
    if steps.raw:
        return RAW.format("transformers")
    lacks = ""
    if steps.channels not in {1, 3}:
        lacks = f"takes {COLOURS[steps.channels]}"
    elif steps.fit != "squash" and steps.size[0] != steps.size[1]:
        step = "pads" if steps.fit == "pad" else "resizes and crops"
        lacks = f"{step} to a size where height and width differ ({steps.size[0]} x {steps.size[1]} px)"
    if not lacks:
        return ""
    return (
        f"There is no preprocessor_config.json, because no processor of transformers {lacks}: prepare the images "
        "yourself."
    )


def transformers_approximates(steps: Preprocess) -> bool:
    """Return whether transformers' processor only approximates ours: it pads first, to within half a pixel."""
    return steps.fit == "pad"


def of_timm(steps: Preprocess) -> dict[str, Any]:
    """Return timm's configuration of this preprocessing."""
    return {
        "input_size": [steps.channels, *steps.size],
        "mean": list(steps.mean),
        "std": list(steps.std),
        "interpolation": steps.interpolation,
        "crop_pct": steps.crop_fraction,
        "crop_mode": {"squash": "squash", "crop": "center", "pad": "border"}[steps.fit],
    }


def of_transformers(steps: Preprocess) -> dict[str, Any]:
    """Return a preprocessor_config.json for this preprocessing, if `transformers_cannot` returned ""."""
    size = {"height": steps.size[0], "width": steps.size[1]}
    common: dict[str, Any] = {
        "do_convert_rgb": steps.channels == 3,
        "do_resize": True,
        "resample": {"bicubic": 3, "bilinear": 2}[steps.interpolation],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(steps.mean),
        "image_std": list(steps.std),
    }
    if steps.fit == "squash" and steps.crop_fraction == 1:
        return {"image_processor_type": "ViTImageProcessor", "size": size, **common}
    tall, wide = (int(side / steps.crop_fraction) for side in steps.size)
    aim = {"height": tall, "width": wide} if steps.fit == "squash" else {"shortest_edge": tall}
    cropped = {"do_center_crop": True, "crop_size": size, "size": aim}
    if steps.fit == "pad":  # this processor pads to a square with the mean colour
        return {"image_processor_type": "LlavaImageProcessor", "do_pad": True, **cropped, **common}
    return {"image_processor_type": "BitImageProcessor", **cropped, **common}
