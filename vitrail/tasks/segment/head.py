"""The heads of segmentation: one number a class and cell of a map that covers the input."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.head import NO_INPUTS, Head, Output
from vitrail.layers.pixels import ConvStem, PixelMap, to_the_rim
from vitrail.layers.tokens import Features, FeatureSpec


class LinearMapHead(Head):
    """One linear layer on each of the last tokens: Features -> map (b, k, row, col) at the stride of the network."""

    words = "every patch"

    def __init__(self, spec: FeatureSpec, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(spec.width, classes)
        self.rim = spec.rim
        _small(self.linear)

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Return the map."""
        x: Tensor = self.linear(self.dropout(features.tokens.map().permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        if self.rim:
            height, width = inputs["images"].shape[-2:]
            x = to_the_rim(x, (height, width), self.rim)
        return {"map": x}


class PixelHead(Head):
    """Maps of several depths at about a quarter of the input, then one linear layer: Features -> map (b, k, row, col).

    With a `stem` of so many channels of the image, convolutions of the image itself are added for thin things.
    """

    words = "maps of several depths"

    def __init__(
        self, spec: FeatureSpec, classes: int, width: int = 256, *, stem: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.pixels = PixelMap(spec, width)
        self.reads, self.taps = ("levels" if self.pixels.levels else "patches"), self.pixels.taps
        self.stem = ConvStem(stem, 64) if stem else None
        self.join = nn.Linear(64, self.pixels.out) if stem else None
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(self.pixels.out, classes)
        _small(self.linear)

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Return the map."""
        images = inputs["images"]
        x = self.pixels(features, (images.shape[-2], images.shape[-1]))
        if self.stem is not None and self.join is not None:
            fine = self.join(self.stem(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            x = x + F.interpolate(fine, x.shape[-2:], mode="bilinear")
        x = self.dropout(F.gelu(x).permute(0, 2, 3, 1))
        return {"map": self.linear(x).permute(0, 3, 1, 2)}


def _small(linear: nn.Linear) -> None:
    nn.init.trunc_normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
