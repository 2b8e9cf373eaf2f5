"""Choose the network, its initial weights and its input size when the user leaves them open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median_low
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from vitrail.core.catalog import load as load_part
from vitrail.data.manifest import Manifest
from vitrail.data.open_image import load
from vitrail.data.preprocess import Preprocess
from vitrail.layers.encoder import Encoder
from vitrail.models.factory import build, config_of, create_encoder, takes_clips, with_frames
from vitrail.runs.recipe import settings_of
from vitrail.runs.train_options import TrainOptions, image_size, network_settings
from vitrail.tasks.base import Task
from vitrail.training.head_transfer import PublishedHead
from vitrail.weights.local_registry import known
from vitrail.weights.preprocessing import deviations, published_preprocess
from vitrail.weights.pretrained import Pretrained
from vitrail.weights.resolve import find_weights, to_download
from vitrail.weights.stated_config import of_user

TINY = 64
"""Largest short side of the images, in pixels, for a network that is made for small images."""

DRAFT_MODEL = "dinov2_s14"
"""The network whose published weights are used by default."""

DRAFT_SIZE = 224

FRAMES, MEAN = 8, "mean"
"""The frames of a clip that a network for images sees, and how it joins them, if nothing is stated."""


class NetworkChoice(NamedTuple):
    """The chosen network, before its recipe is chosen."""

    name: str
    weights: str
    encoder: Encoder  # on the meta device: no weights
    size: tuple[int, int]
    settings: Mapping[str, Any] = MappingProxyType({})
    view: Preprocess | None = None  # the preprocessing that the weights state, if any
    head: PublishedHead | None = None  # the head in the weights, if any
    over_time: str | None = None  # how a network for images joins the frames of a clip


class NamedNetwork(NamedTuple):
    """The network that the user or the user's recipe names, if any, with its changed settings and size.

    `clips` tells whether the data are clips; `frames` and `over_time` are then what the user states about them.
    """

    name: str | None
    settings: dict[str, Any]
    size: tuple[int, int] | None
    clips: bool = False
    frames: int | None = None
    over_time: str | None = None


def named_network(options: TrainOptions) -> NamedNetwork:
    """Return name, settings and size of the network as stated by the user or the user's recipe."""
    stated = settings_of(options.recipe).get("model", {}) if options.recipe else {}
    settings = {**stated.get("settings", {}), **network_settings(options.network)}
    size = image_size(options.imgsz) or (tuple(stated["imgsz"]) if "imgsz" in stated else None)
    return NamedNetwork(options.model or stated.get("name"), settings, size)


def fresh_network(
    side: int, wanted: NamedNetwork, networks: tuple[tuple[float, str], ...] = Task.networks
) -> tuple[NetworkChoice, list[str]]:
    """Choose a network to train from scratch on images with this short side; return it with the reasons.

    `networks` are those of the task, by the longest short side for each.
    """
    reasons = []
    model = wanted.name
    if model is None:
        model = next(name for longest, name in networks if side <= longest)
        reasons.append(f"network {model}: the images are {side} px on their short side")
    with torch.device("meta"):
        image = wanted.size if wanted.settings else None
        own = wanted.frames if wanted.clips and takes_clips(config_of(model)) else None
        encoder = create_encoder(model, image=image, settings=wanted.settings, frames=own)
        encoder, joined = _over_time(encoder, wanted)
    size = encoder.image_size
    if encoder.spec.attention == "none" and side < min(size) and wanted.size is None:
        small = min(*size, max(32, -(-side // 32) * 32))
        reasons.append(f"input {small} px: the images are {side} px on their short side")
        size = (small, small)
    choice = NetworkChoice(model, "none", encoder, size, wanted.settings, over_time=joined)
    return choice, [*reasons, *_time_line(choice, wanted)]


def pretrained_network(source: str, wanted: NamedNetwork) -> tuple[NetworkChoice, list[str]]:
    """Choose a network that starts from published weights; return it with the reasons.

    Raises:
        WeightsError: the weights are not available. Training from scratch is never a silent replacement.
        SettingError: settings of the network were changed, so that published weights do not fit.
    """
    of_user(wanted.settings)  # refuses settings that the weights define, before any weights are searched
    weights = _weights(source, wanted)
    model = wanted.name or weights.network_name
    auto = source == "auto"
    reasons = [f"weights {weights.name}, licence {weights.licence or 'not stated'}"] if auto else []
    if weights.clips is not None and wanted.clips:
        wanted = wanted._replace(
            frames=wanted.frames or weights.clips.frames,
            over_time=wanted.over_time or weights.clips.over_time,
        )
    with torch.device("meta"):
        encoder, joined = _over_time(build(weights.config), wanted)
    view = published_preprocess(weights)
    size = view.size if max(view.size) <= DRAFT_SIZE else (DRAFT_SIZE, DRAFT_SIZE)
    name = weights.name if auto else source
    stated = view if weights.preprocessing else None
    head = PublishedHead(weights.task, weights.settings) if weights.head else None
    choice = NetworkChoice(model, name, encoder, size, wanted.settings, stated, head, joined)
    return choice, [*reasons, *deviations(weights), *_time_line(choice, wanted)]


def _over_time(encoder: Encoder, wanted: NamedNetwork) -> tuple[Encoder, str | None]:
    """Return the network as it takes the data, and how it joins the frames of clips if it is one for images.

    SettingError if what the user states of the frames does not fit the network.
    """
    if not wanted.clips:
        return encoder, None
    if encoder.spec.frames:
        return with_frames(encoder, wanted.frames, wanted.over_time), None
    joined = wanted.over_time or MEAN
    return with_frames(encoder, wanted.frames or FRAMES, joined), joined


def _time_line(choice: NetworkChoice, wanted: NamedNetwork) -> list[str]:
    """Return a line on the frames that the network sees of each clip; [] for images."""
    if not wanted.clips:
        return []
    frames = choice.encoder.spec.frames
    if choice.over_time is None:
        return [f"{frames} frames of each clip, compared by the network's attention over time"]
    joined = (
        "their mean: it does not know their order"
        if choice.over_time == MEAN
        else "attention over their times"
    )
    return [f"{frames} frames of each clip, each seen by {choice.name} alone; joined by {joined}"]


def weights_to_download(options: TrainOptions) -> str | None:
    """Return the hub repository from which a training with these options starts; None if it needs no download."""
    source, named = options.weights or "auto", named_network(options).name
    if options.weights is None and options.task and load_part("task", options.task).fresh:
        return None
    if source == "none":
        return None
    if source == "auto" and named is None:
        return None if known() else to_download("auto", DRAFT_MODEL)
    return to_download(source, named)


def _weights(source: str, wanted: NamedNetwork) -> Pretrained:
    """Return the requested weights; `auto` without a network is the first that the user added, else DINOv2."""
    if source == "auto" and wanted.name is None:
        if added := known():
            return find_weights(added[0].name, None, wanted.settings)
        return find_weights("auto", DRAFT_MODEL, wanted.settings)
    return find_weights(source, wanted.name, wanted.settings)


def shapes_of(manifest: Manifest, most: int = 32) -> list[tuple[int, int]]:
    """Return the (height, width) of at most about twice `most` kept images, spread over the manifest."""
    rows = manifest.rows()
    some = rows[:: max(1, len(rows) // most)]
    return [load(manifest.root, row.path, part=row.part).image.shape[:2] for row in some]


def are_grey(manifest: Manifest, most: int = 32) -> bool:
    """Return whether at most about twice `most` kept images, spread over the manifest, have no colour."""
    rows = manifest.rows()
    some = rows[:: max(1, len(rows) // most)]
    images = (load(manifest.root, row.path, part=row.part).image for row in some)
    return all(bool((one == one[..., :1]).all()) for one in images)


def short_side(shapes: Sequence[tuple[int, int]]) -> int:
    """Return the median short side, in pixels."""
    return int(median_low(min(shape) for shape in shapes))
