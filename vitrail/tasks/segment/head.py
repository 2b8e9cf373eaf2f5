"""The heads of segmentation: one logit per class and cell of a map that covers the input."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.data.labels import count
from vitrail.layers.heads import NO_INPUTS, Head, Output
from vitrail.layers.pixel_map import ConvStem, PixelMap, extend_to_border
from vitrail.layers.tokens import Features, FeatureSpec


class LinearMapHead(Head):
    """One linear layer on each of the last tokens: Features -> map (b, k, row, col) at the stride of the network."""

    words = "every patch"

    def __init__(self, spec: FeatureSpec, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(spec.width, classes)
        self.rim = spec.overlap_margin
        _small(self.linear)

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Return the logit map."""
        x: Tensor = self.linear(self.dropout(features.tokens.map().permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        if self.rim:
            height, width = inputs["images"].shape[-2:]
            x = extend_to_border(x, (height, width), self.rim)
        return {"map": x}


class PixelHead(Head):
    """Feature maps of several depths at about 1/4 of the input size, then one linear layer.

    Features -> map (b, k, row, col). `stem` is the number of image channels: if it is not 0, convolutions of the image
    itself are added, which helps with thin objects.
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
        """Return the logit map."""
        x = self.dropout(F.gelu(self._pixels(features, inputs["images"])).permute(0, 2, 3, 1))
        return {"map": self.linear(x).permute(0, 3, 1, 2)}

    def _pixels(self, features: Features, images: Tensor) -> Tensor:
        x: Tensor = self.pixels(features, (images.shape[-2], images.shape[-1]))
        if self.stem is not None and self.join is not None:
            fine = self.join(self.stem(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            x = x + F.interpolate(fine, x.shape[-2:], mode="bilinear")
        return x

    def stages(
        self, features: Features, images: Tensor
    ) -> list[tuple[str, str, tuple[tuple[str, Tensor], ...]]]:
        """Return the intermediate steps for one image: a name, an explanation, and maps with captions."""
        x = self._pixels(features, images)[0]
        read = features.levels if self.pixels.levels else (features.tokens.map(),)
        blocks = self.taps or range(1, len(read) + 1)
        taps = tuple((f"after block {block}", one[0]) for block, one in zip(blocks, read, strict=True))
        width = self.pixels.project[0].out_features
        times = len(self.pixels.scale)
        doubled = f"Rows and columns are doubled, {count(times, 'time')}. " if times else ""
        stem = " The convolutions of the image itself are added to it." * (self.stem is not None)
        return [
            (
                "Maps of several depths",
                "The tokens of these blocks, after the last norm, are arranged in rows and columns. The images show "
                f"their first three principal components. A linear layer maps each cell to {width} numbers, and the "
                "maps are added.",
                taps,
            ),
            (
                "A finer map",
                f"{doubled}A cell covers about {images.shape[-2] / x.shape[-2]:.3g} pixels of the input, so that thin "
                f"objects remain visible.{stem}",
                (("the map that the classes are computed from", x),),
            ),
        ]


def _small(linear: nn.Linear) -> None:
    nn.init.trunc_normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
