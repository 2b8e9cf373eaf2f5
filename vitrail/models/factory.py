"""Create networks by name: our presets, timm's names for them, and all other networks of timm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatchcase
from importlib import import_module
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import nn

from vitrail.core import catalog
from vitrail.core.errors import SettingError, UnknownNameError, nearest
from vitrail.layers.elastic import set_keep, set_merge
from vitrail.layers.encoder import Encoder
from vitrail.layers.patch_embedding import sides
from vitrail.models.names import our_name, timm_name

Size = int | tuple[int, int]

OVERLAPPING = ("vit", "dinov2")
"""Families whose patches may overlap."""


def create_encoder(
    name: str,
    *,
    image: Size | None = None,
    channels: int = 3,
    drop_path: float | None = None,
    stride: int | None = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
    frames: int | None = None,
    over_time: str | None = None,
) -> Encoder:
    """Return a randomly initialised encoder by our name (`vit_s16`) or timm's (`vit_small_patch16_224`, `resnet50`).

    `image` is the size in pixels of the position table, one number or (height, width) (None: that of the preset).
    `stride` is the pixels from one patch to the next, for patches that overlap. `settings` change other fields of the
    network's config. With `frames` the network takes clips of so many frames: a network for clips itself, and any other
    one over the frames, whose vectors become one `over_time`, by their "mean" (default) or by "attention".

    Raises:
        UnknownNameError: the name is unknown; the message suggests the nearest one.
        SettingError: the network does not accept an argument.
    """
    if frames is not None and takes_clips(config_of(name)):
        settings = {**settings, "frames": frames}
    if not settings:
        config = config_of(name, image=image, channels=channels, drop_path=drop_path, stride=stride)
        return with_frames(build(config), frames, over_time)
    config = config_of(
        name, channels=channels, drop_path=drop_path, stride=None if "patch" in settings else stride
    )
    if stride is not None and "patch" in settings:
        settings = {**settings, "patch": _overlapping_patch(config, settings["patch"], stride)}
    # All at once: an image that the preset's patches do not tile may fit the requested patches.
    config = changed(config, {**({} if image is None else {"image": image}), **settings})
    return with_frames(build(config), frames, over_time)


def takes_clips(config: Any) -> bool:
    """Return whether a network with these settings takes clips itself, and no images."""
    return "frames" in {field.name for field in fields(config)}


def with_frames(encoder: Encoder, frames: int | None, over_time: str | None) -> Encoder:
    """Return a network that takes clips of `frames` frames: this one, or this one over the frames; None: this one.

    SettingError if the arguments do not fit the network, or each other.
    """
    if encoder.spec.frames:
        if over_time is not None:
            raise SettingError(
                f"{type(encoder).__name__} sees all frames of a clip at once. Leave out --over-time {over_time}."
            )
        if frames not in (None, encoder.spec.frames):
            raise SettingError(f"This network takes clips of {encoder.spec.frames} frames, not {frames}.")
        return encoder
    if frames is None:
        if over_time is not None:
            raise SettingError(f"--over-time {over_time} needs the number of frames of a clip, --frames.")
        return encoder
    from vitrail.models.frames import over_frames  # it builds its image network with this module

    return over_frames(encoder, frames, cast(Any, over_time or "mean"))


def _overlapping_patch(config: Any, patch: Any, stride: int) -> Any:
    """Return the setting for patches of a stated side, `stride` pixels apart.

    SettingError if the side is stated with a stride of its own, or for families whose patches cannot overlap.
    """
    if config.family not in OVERLAPPING:
        refuse_overlap(config.family, stride)
    if not isinstance(patch, int):
        raise SettingError(f"--stride {stride} and patch={patch} both state the stride. Leave one out.")
    return patch if stride == patch else (patch, stride)


def changed(config: Any, settings: Mapping[str, Any]) -> Any:
    """Return a network's settings with some of them changed. SettingError for an unknown name or a wrong type."""
    from pydantic import TypeAdapter, ValidationError

    if config.family == "timm":
        raise SettingError(
            f"Settings of a network ({', '.join(settings)}) are for our own networks; timm's {config.name} has none."
        )
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    for name in settings:
        if name not in values:
            near = nearest(name, values)
            hint = f" Did you mean {near!r}?" if near else f" It has: {', '.join(values)}."
            raise SettingError(f"The network {config.family!r} has no setting {name!r}.{hint}")
    try:
        return TypeAdapter(type(config)).validate_python({**values, **settings})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SettingError(
            f"The setting {where!r} of the network is not valid: {first['msg']} (it was {first['input']!r})."
        ) from None


def config_of(
    name: str,
    *,
    image: Size | None = None,
    channels: int = 3,
    drop_path: float | None = None,
    stride: int | None = None,
) -> Any:
    """Return the settings for `create_encoder`, as the config class of the family."""
    preset, side = our_name(name)
    family = catalog.family_of(preset)
    if family is None:
        refuse_overlap(name, stride)
        return _timm_config(name, image, channels, drop_path)
    config = presets_of(family)[preset]
    changes: dict[str, Any] = {"image": image or side, "channels": channels, "drop_path": drop_path}
    changes |= {"patch": overlapping(config, stride)}
    if family == "clip" and preset != name:
        changes["gelu"] = "quick" if "quickgelu" in name else "exact"
    return replace(config, **{key: value for key, value in changes.items() if value is not None})


def overlapping(config: Any, stride: int | None) -> int | tuple[int, int] | None:
    """Return the `patch` setting for patches that are `stride` pixels apart, or None without a stride.

    SettingError for families whose patches cannot overlap.
    """
    if stride is None:
        return None
    if config.family not in OVERLAPPING:
        refuse_overlap(config.family, stride)
    side = config.patch[0] if isinstance(config.patch, tuple) else config.patch
    return side if stride == side else (side, stride)


def refuse_overlap(name: str, stride: int | None) -> None:
    """Raise a SettingError for a stride with a network whose patches cannot overlap."""
    if stride is not None:
        raise SettingError(f"{name} takes no --stride; only {' and '.join(OVERLAPPING)} networks do.")


def build(config: Any) -> Encoder:
    """Return the encoder with these settings, of the family that they name."""
    if config.family == "timm":
        from vitrail.models.timm_wrapper import TimmEncoder

        return TimmEncoder(config)
    return cast(Encoder, catalog.load("architecture", config.family)(config))


def presets_of(family: str) -> Mapping[str, Any]:
    """Return the presets of a family, from its module."""
    module = catalog.ARCHITECTURES[family].partition(":")[0]
    return cast(Mapping[str, Any], import_module(module).PRESETS)


def describe(encoder: Encoder) -> dict[str, Any]:
    """Return the family and the settings of an encoder as plain data for JSON, for `rebuild`."""
    return {"family": encoder.config.family, "config": asdict(encoder.config)}


def rebuild(description: Mapping[str, Any]) -> Encoder:
    """Return a randomly initialised encoder from the data of `describe`. SettingError for an unknown setting."""
    return build(config_from(description))


def config_from(description: Mapping[str, Any]) -> Any:
    """Return the settings in the data of `describe`. SettingError for an unknown setting."""
    family, values = description["family"], description["config"]
    settings = _config_class(family)
    known = [field.name for field in fields(settings)]
    for name in values:
        if name not in known:
            hint = f"; did you mean {near!r}?" if (near := nearest(name, known)) else "; update vitrail."
            raise SettingError(f"The network {family!r} has no setting {name!r}{hint}")
    # JSON has no tuples; every list in the settings was one.
    return settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One line of `vitrail models`: name, family, parameters without a classifier, image size and width."""

    name: str
    family: str
    params: int
    image: tuple[int, int]
    width: int


def list_models(pattern: str = "*") -> list[ModelRow]:
    """Return our presets that match a shell pattern; they are built on the meta device and use no memory."""
    rows = []
    for name in catalog.presets(pattern):
        config = config_of(name)
        with torch.device("meta"):
            encoder = build(config)
        rows.append(
            ModelRow(name, config.family, count_params(encoder), sides(config.image), encoder.spec.width)
        )
    return rows


def list_timm(pattern: str = "*") -> list[str]:
    """Return the names of timm's networks that match a shell pattern."""
    import timm

    return [name for name in timm.list_models() if fnmatchcase(name, pattern)]


def count_params(network: nn.Module) -> int:
    """Return the number of parameters, trained and frozen."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(encoder: Encoder, image: Size, keep: float = 1.0, merge: int = 0) -> int:
    """Return the multiply-adds of matrix products and convolutions for one image or clip.

    `keep` and `merge` as in `OperatingPoint`.
    """
    from torch.utils.flop_counter import (
        FlopCounterMode,
    )  # imports the compiler, which prediction does not need

    config = encoder.config
    with torch.device("meta"), torch.no_grad():
        copy = build(config).eval().requires_grad_(False)  # the counter looks for gradients otherwise
        set_keep(copy, keep)
        set_merge(copy, merge)
        counter = FlopCounterMode(display=False)
        with counter:
            copy(torch.zeros(1, *copy.spec.shape(sides(image))))
    return int(counter.get_total_flops()) // 2


def _config_class(family: str) -> type[Any]:
    if family == "timm":
        from vitrail.models.timm_wrapper import TimmConfig

        return TimmConfig
    return cast(type[Any], catalog.load("architecture", family).Config)


def _timm_config(name: str, image: Size | None, channels: int, drop_path: float | None) -> Any:
    # Importing timm takes one to two seconds, so our own presets are tried first.
    import timm

    from vitrail.models.timm_wrapper import TimmConfig

    name = timm_name(name)
    if not timm.is_model(name):
        known = [*catalog.presets(), *timm.list_models()]
        raise UnknownNameError(
            "model", name, known, "`vitrail models` lists ours, `vitrail models --timm` all."
        )
    return TimmConfig(name, image, channels, drop_path)
