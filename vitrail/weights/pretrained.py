"""Weights that are ready to be built upon: from a file, a folder or a name to an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor

from vitrail.core.errors import WeightsError
from vitrail.layers.encoder import Encoder
from vitrail.layers.position import LearnedPosition, resize_grid
from vitrail.layers.window_attention import RelativeBias
from vitrail.models.factory import Size, build, overlapping
from vitrail.weights.conventions import Preprocessing
from vitrail.weights.detect_layout import read
from vitrail.weights.files import open_weights
from vitrail.weights.infer_config import preset_of


@dataclass(frozen=True, slots=True)
class Pretrained:
    """Weights in our names, the settings of their network in their source's conventions, and where they are from.

    `preprocessing` and `licence` are None where nobody states them. `head` is what the file has beyond the
    encoder, under the names of `vitrail.layers.heads.LinearHead`; `pool` is what it reads, and `labels` the
    classes in its order, where that is stated.
    `assumed` are sentences on what was taken for granted, and on what of the file was left aside.
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

    @property
    def network_name(self) -> str:
        """The name of their network: our preset's or family's, else timm's, with the weights' tag where they bear it.

        A family's name stands for every network of it (`from_path`).
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
    ) -> Encoder:
        """Return the encoder with these weights, in evaluation mode, fitted to another size or number of channels.

        Position tables are resized in their source's convention, to the denser grid of overlapping patches
        too (`stride`). One channel gets the sum of the colour
        kernels (a grey image then gives what it gave as R = G = B); other numbers get their mean, scaled
        alike.
        """
        changes = {"image": image, "channels": channels, "drop_path": drop_path}
        changes |= {"patch": overlapping(self.config, stride)}
        config = replace(self.config, **{key: value for key, value in changes.items() if value is not None})
        with torch.device("meta"):
            before = build(self.config)
        encoder = build(config)
        tensors = {name: t.float() if t.is_floating_point() else t for name, t in self.encoder.items()}
        if config.family == "timm" and image is not None:
            tensors = _fit_timm(tensors, self.config, config)
        _fit_positions(tensors, before, encoder)
        _fit_channels(tensors, encoder)
        encoder.load_state_dict(tensors)
        return encoder.eval()


def from_path(
    path: Path, model: str | None = None, network: Mapping[str, Any] = MappingProxyType({})
) -> Pretrained:
    """Return the weights of a file or folder.

    `model` names their network where the file cannot say it (a family's name, any network of it); `network` states
    what no tensor tells: heads, image, gelu, norm_eps.
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
    )


@torch.no_grad()
def _fit_positions(tensors: dict[str, Tensor], before: Encoder, after: Encoder) -> None:
    """Resize what is learned for each place to the places of another image size."""
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
    """Let a network of timm fit its own tables to another image size, where it knows how."""
    encoder = build(before)
    if not hasattr(encoder.net, "set_input_size"):
        return tensors
    encoder.load_state_dict(tensors)
    cast(Any, encoder.net).set_input_size(img_size=after.size)
    return encoder.state_dict()


def _fit_channels(tensors: dict[str, Tensor], encoder: Encoder) -> None:
    """Fit the kernels of the first convolution, the one tensor that knows the number of channels."""
    for name, wanted in encoder.state_dict().items():
        kernel = tensors[name]
        if kernel.shape == wanted.shape:
            continue
        if kernel.ndim != 4 or (len(kernel), *kernel.shape[2:]) != (len(wanted), *wanted.shape[2:]):
            raise WeightsError(
                f"{name} is {tuple(kernel.shape)} in the weights and {tuple(wanted.shape)} in the network: "
                "these weights fit their own image size alone; leave the size as it is."
            )
        total = kernel.sum(1, keepdim=True)
        tensors[name] = total.expand_as(wanted) / wanted.shape[1]
