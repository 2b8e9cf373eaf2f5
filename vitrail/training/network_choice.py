"""Which network is trained, from which weights and at which size, where the user leaves that open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median_low
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from vitrail.data.manifest import Manifest
from vitrail.data.open_image import load
from vitrail.data.preprocess import Preprocess
from vitrail.layers.encoder import Encoder
from vitrail.models.factory import build, create_encoder
from vitrail.runs.recipe import settings_of
from vitrail.runs.train_options import TrainOptions, image_size, network_settings
from vitrail.weights.local_registry import known
from vitrail.weights.preprocessing import deviations, published_preprocess
from vitrail.weights.pretrained import Pretrained
from vitrail.weights.resolve import find_weights
from vitrail.weights.stated_config import of_user

TINY = 64
"""Images whose short side is at most this many pixels get a network made for small images."""

DRAFT_MODEL = "dinov2_s14"
"""The network whose published weights are asked for where the user names none."""

DRAFT_SIZE = 224


class NetworkChoice(NamedTuple):
    """What the network will be, before its recipe is chosen."""

    name: str
    weights: str
    encoder: Encoder  # on the meta device: only what it says of itself
    size: tuple[int, int]
    settings: Mapping[str, Any] = MappingProxyType({})
    view: Preprocess | None = None  # as the weights want images, where they say so


class NamedNetwork(NamedTuple):
    """The network that the user or the user's recipe names, if any, with changed settings and size."""

    name: str | None
    settings: dict[str, Any]
    size: tuple[int, int] | None


def named_network(options: TrainOptions) -> NamedNetwork:
    """Return what the user or the user's recipe says of the network."""
    said = settings_of(options.recipe).get("model", {}) if options.recipe else {}
    settings = {**said.get("settings", {}), **network_settings(options.network)}
    size = image_size(options.imgsz) or (tuple(said["imgsz"]) if "imgsz" in said else None)
    return NamedNetwork(options.model or said.get("name"), settings, size)


def fresh_network(side: int, wanted: NamedNetwork) -> tuple[NetworkChoice, list[str]]:
    """Choose a network to train from scratch on images of this short side, and say why."""
    reasons = []
    model = wanted.name
    if model is None:
        model = "vit_digits" if side <= TINY else "vit_s16"
        reasons.append(f"network {model}: the images are {side} px on their short side")
    with torch.device("meta"):
        encoder = create_encoder(
            model, image=wanted.size if wanted.settings else None, settings=wanted.settings
        )
    size = encoder.image_size
    if encoder.spec.attention == "none" and side < min(size) and wanted.size is None:
        small = min(*size, max(32, -(-side // 32) * 32))
        reasons.append(f"input {small} px: the images are {side} px on their short side")
        size = (small, small)
    return NetworkChoice(model, "none", encoder, size, wanted.settings), reasons


def pretrained_network(source: str, wanted: NamedNetwork) -> tuple[NetworkChoice, list[str]]:
    """Choose a network that starts from weights, and say which.

    Raises:
        WeightsError: they cannot be had; a training from noise is never put in their place.
        SettingError: settings of the network were changed, which published weights do not fit.
    """
    of_user(wanted.settings)  # what weights tell themselves is refused before any are looked for
    weights = _weights(source, wanted)
    model = wanted.name or weights.network_name
    auto = source == "auto"
    reasons = [f"weights {weights.name}, licence {weights.licence or 'not stated'}"] if auto else []
    with torch.device("meta"):
        encoder = build(weights.config)
    view = published_preprocess(weights)
    size = view.size if max(view.size) <= DRAFT_SIZE else (DRAFT_SIZE, DRAFT_SIZE)
    name = weights.name if auto else source
    stated = view if weights.preprocessing else None
    found = NetworkChoice(model, name, encoder, size, wanted.settings, stated)
    return found, [*reasons, *deviations(weights)]


def _weights(source: str, wanted: NamedNetwork) -> Pretrained:
    """Return the weights that were asked for; `auto` without a network takes what the user added, then DINOv2."""
    if source == "auto" and wanted.name is None:
        added = known()
        return find_weights(
            added[0].name if added else "auto", None if added else DRAFT_MODEL, wanted.settings
        )
    return find_weights(source, wanted.name, wanted.settings)


def shapes_of(manifest: Manifest, most: int = 32) -> list[tuple[int, int]]:
    """Return the (height, width) of some of the kept images, spread over the manifest."""
    rows = manifest.rows()
    some = rows[:: max(1, len(rows) // most)]
    return [load(manifest.root, row.path, part=row.part).image.shape[:2] for row in some]


def short_side(shapes: Sequence[tuple[int, int]]) -> int:
    """Return the median short side, in pixels."""
    return int(median_low(min(shape) for shape in shapes))
