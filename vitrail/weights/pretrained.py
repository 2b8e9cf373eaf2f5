"""Pretrained weights: from a file, a folder or a name to an encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.layers.encoder import Encoder
from vitrail.layers.position import LearnedPosition, resize_grid
from vitrail.layers.window_attention import RelativeBias
from vitrail.models.factory import Size, build, overlapping, takes_clips, with_frames
from vitrail.weights.conventions import Preprocessing
from vitrail.weights.detect_layout import read
from vitrail.weights.files import open_weights
from vitrail.weights.first_layer import COLOUR_NAMES, fit_bands, fit_channels
from vitrail.weights.infer_config import preset_of
from vitrail.weights.read_request import CLASSIFY, OfClips


@dataclass(frozen=True, slots=True)
class Pretrained:
    """Weights with our tensor names, the settings of their network with the conventions of their source, their origin.

    `preprocessing` and `licence` are None if they are not stated. `head` is the classifier of the file, with the names
    of `vitrail.layers.heads.LinearHead`; `pool` is what it reads, and `labels` its classes in order, if stated.
    `assumed` are sentences about assumptions, and about parts of the file that are not used. The head is that of `task`
    with these `settings`; for other tasks than classification its tensors have the names of the head of the task.
    Of the classes of a panoptic one, `things` are single objects, if stated. `words` is the vocabulary of a text tower
    that was trained here, empty for others. `clips` is what weights that were trained over frames have besides those
    of their network for images.
    """

    name: str
    config: Any
    encoder: Mapping[str, Tensor]
    head: Mapping[str, Tensor]
    source: str
    preprocessing: Preprocessing | None = None
    licence: str | None = None
    pool: str | None = None
    assumed: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    task: str = CLASSIFY
    settings: Mapping[str, Any] = field(default_factory=dict)
    things: tuple[str, ...] = ()
    words: Mapping[str, Any] = field(default_factory=dict)
    clips: OfClips | None = None

    @property
    def bands(self) -> tuple[str, ...]:
        """The names of the bands that the weights were trained on, () for photographs."""
        return self.preprocessing.bands if self.preprocessing else ()

    @property
    def image_channels(self) -> int:
        """Channels of the images: those of the network, unless it sees latents that an autoencoder makes of images."""
        latents = bool(self.settings.get("vae")) and self.preprocessing is not None
        return len(self.preprocessing.mean) if latents and self.preprocessing else int(self.config.channels)

    @property
    def network_name(self) -> str:
        """The name of the network: that of our preset or family, else timm's, with the tag of the weights if any.

        The name of a family matches all its networks (`from_path`).
        """
        if self.config.family != "timm":
            return preset_of(self.config) or str(self.config.family)
        network: str = self.config.name
        return self.name if self.name.partition(".")[0] == network else network

    def build(
        self,
        *,
        image: Size | None = None,
        channels: int | None = None,
        drop_path: float | None = None,
        stride: int | None = None,
        bands: Sequence[str] = (),
        frames: int | None = None,
    ) -> Encoder:
        """Return the encoder with these weights, in evaluation mode, fitted to another size or number of channels.

        Position tables are resized with the convention of their source, also to the denser grid of overlapping patches
        (`stride`). Channels get the mean of the colour kernels, one channel their sum; named `bands` those of what they
        mean (`vitrail.weights.first_layer`). A network for clips gets the places of so many `frames`.
        """
        changes = {"image": image, "channels": channels, "drop_path": drop_path}
        changes |= {"patch": overlapping(self.config, stride)}
        changes |= {"frames": frames if takes_clips(self.config) else None}
        config = replace(self.config, **{key: value for key, value in changes.items() if value is not None})
        if getattr(config, "table", None) is not None:
            config = replace(config, table=None)  # positions are resized once, here, and not for every image
        with torch.device("meta"):
            before = build(self.config)
        encoder = build(config)
        tensors = {name: t.float() if t.is_floating_point() else t for name, t in self.encoder.items()}
        if config.family == "timm" and image is not None:
            tensors = _fit_timm(tensors, self.config, config)
        _fit_positions(tensors, before, encoder)
        in_order = not self.bands and len(bands) == before.spec.channels != len(COLOUR_NAMES)
        if bands and not in_order:  # Keras' files of as many bands have no names for them
            fit_bands(tensors, config, bands, self.bands)
        fit_channels(tensors, encoder)
        encoder.load_state_dict(tensors)
        return encoder.eval()

    def for_clips(self, encoder: Encoder, frames: int | None, over_time: str | None) -> Encoder:
        """Return the encoder that `build` made, for clips of `frames` frames (`vitrail.models.factory.with_frames`).

        Attention over time begins with that of weights that have one, with its places fitted to the number of frames.
        """
        network = with_frames(encoder, frames, over_time)
        if self.clips is not None and self.clips.tensors and getattr(network, "over_time", None) is not None:
            tensors = dict(self.clips.tensors)
            places = tensors["position"].float().T[None]
            fitted = F.interpolate(places, network.spec.frames, mode="linear", align_corners=True)
            network.get_submodule("over_time").load_state_dict({**tensors, "position": fitted[0].T})
        return network


def from_path(
    path: Path, model: str | None = None, network: Mapping[str, Any] = MappingProxyType({})
) -> Pretrained:
    """Return the weights of a file or folder.

    `model` is their network, if the file does not state it (the name of a family matches all its networks); `network`
    states settings that do not follow from tensors: heads, image, gelu, norm_eps.
    """
    found = read(open_weights(path), model, network)
    return Pretrained(
        path.stem if path.is_file() else path.name,
        found.config,
        found.weights.encoder,
        found.weights.head,
        found.source,
        found.preprocessing,
        found.licence,
        found.pool,
        found.assumed,
        found.labels,
        found.task,
        found.settings,
        found.things,
        found.words,
        found.clips,
    )


@torch.no_grad()
def _fit_positions(tensors: dict[str, Tensor], before: Encoder, after: Encoder) -> None:
    """Resize learned position tables to another image size."""
    was = dict(before.named_modules())
    for name, module in after.named_modules():
        key, old = f"{name}.table", was.get(name)
        if isinstance(module, LearnedPosition) and isinstance(old, LearnedPosition):
            old.table = torch.nn.Parameter(tensors[key])
            tensors[key] = old.fitted(module.grid)
        if isinstance(module, RelativeBias) and isinstance(old, RelativeBias):
            a, b = 2 * old.window - 1, 2 * module.window - 1
            tensors[key] = resize_grid(tensors[key][None], (a, a), (b, b), mode="bicubic")[0]


def _fit_timm(tensors: dict[str, Tensor], before: Any, after: Any) -> dict[str, Tensor]:
    """Resize the tables of a timm network to another image size, if timm supports it."""
    encoder = build(before)
    if not hasattr(encoder.net, "set_input_size"):
        return tensors
    encoder.load_state_dict(tensors)
    cast(Any, encoder.net).set_input_size(img_size=after.size)
    return encoder.state_dict()
