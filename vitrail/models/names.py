"""Other names of networks: timm's for ours, and those in papers for timm's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from vitrail.core import catalog

TIMM_SIZES: Mapping[str, str] = MappingProxyType(
    {"tiny": "ti", "small": "s", "medium": "m", "base": "b", "large": "l", "huge": "h", "giant": "g"}
)
"""timm's names of the model sizes."""

TIMM_NAMES = (
    (r"vit_(?P<size>[a-z]+)_patch(?P<patch>\d+)_(?P<image>\d+)\.mae", "mae_{size}{patch}"),
    (r"vit_(?P<size>[a-z]+)_patch(?P<patch>\d+)_(?P<image>\d+)", "vit_{size}{patch}"),
    (r"vit_(?P<size>tiny)_r_s16_p8_(?P<image>\d+)", "vit_r_{size}16"),
    (r"vit_(?P<size>[a-z]+)_(?P<stem>r\d+)_s(?P<patch>\d+)_(?P<image>\d+)", "vit_{stem}_{size}{patch}"),
    (r"deit_(?P<size>[a-z]+)_patch(?P<patch>\d+)_(?P<image>\d+)", "deit_{size}{patch}"),
    (r"deit_(?P<size>[a-z]+)_distilled_patch(?P<patch>\d+)_(?P<image>\d+)", "deit_{size}{patch}_distilled"),
    (r"deit3_(?P<size>[a-z]+)_patch(?P<patch>\d+)_(?P<image>\d+)", "deit3_{size}{patch}"),
    (r"swin_(?P<size>[a-z]+)_patch4_window7_(?P<image>224)", "swin_{first}"),
    (r"swin_(?P<size>[a-z]+)_patch4_window12_(?P<image>384)", "swin_{first}_384"),
    (r"vit_(?P<size>[a-z]+)_patch14_dinov2", "dinov2_{size}14"),
    (r"vit_(?P<size>[a-z]+)_patch14_reg4_dinov2", "dinov2_{size}14_reg4"),
    (r"vit_(?P<size>[a-z]+)_patch(?P<patch>\d+)_clip_(?:quickgelu_)?(?P<image>\d+)", "clip_{size}{patch}"),
    (r"mixer_(?P<size>[a-z])(?P<patch>\d+)_(?P<image>\d+)", "mixer_{size}{patch}"),
)
"""timm's names, as patterns, and our names of the same networks; a tag in a pattern tells two networks apart."""

STORY_NAMES = (
    (r"bit_r(\d+)x(\d)", r"resnetv2_\1x\2_bit"),
    (r"efficientnet_(b\d|l2)_noisy_student", r"tf_efficientnet_\1.ns_jft_in1k"),
    (r"efficientnet_?v2_([sml])", r"tf_efficientnetv2_\1"),
    (r"xception", r"legacy_xception"),
)
"""The papers' names of networks with another name in timm: BiT's ResNetV2, Noisy Student's EfficientNet,
EfficientNetV2 and Xception as published by their authors."""


def our_name(name: str) -> tuple[str, int | None]:
    """Return our preset for one of timm's names, and the image size in the name; other names are returned unchanged.

    A tag after a dot names weights, not a network: `vit_base_patch16_224.augreg_in21k` is `vit_b16`. Only MAE's is
    another network, because its positions are fixed: `vit_base_patch16_224.mae` is `mae_b16`.
    """
    for pattern, preset in TIMM_NAMES:
        if match := re.fullmatch(pattern, name) or re.fullmatch(pattern, name.split(".")[0]):
            parts = match.groupdict()
            size = TIMM_SIZES.get(parts["size"], parts["size"])
            ours = preset.format(**{**parts, "size": size, "first": size[0]})
            if catalog.family_of(ours):
                return ours, int(parts["image"]) if "image" in parts else None
    return name, None


def timm_name(name: str) -> str:
    """Return timm's name for a network with another name in its paper; other names are returned unchanged."""
    for pattern, theirs in STORY_NAMES:
        if match := re.fullmatch(pattern, name):
            return match.expand(theirs)
    return name
