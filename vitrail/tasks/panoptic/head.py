"""The head of panoptic segmentation: objects with masks, and the class of every cell."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vitrail.layers.heads import NO_INPUTS, Head, Output
from vitrail.layers.sdpa import AttentionMap
from vitrail.layers.tokens import Features
from vitrail.tasks.instances.head import InstanceHead
from vitrail.tasks.segment.head import PixelHead


class PanopticHead(Head):
    """Features -> the outputs of `InstanceHead` for things, and `areas` (b, k, row, col), logits of all classes."""

    words = "maps of several depths"

    def __init__(self, things: InstanceHead, pixels: PixelHead) -> None:
        super().__init__()
        assert (things.taps, things.reads) == (pixels.taps, pixels.reads), "both parts read the same maps"
        self.things, self.pixels = things, pixels
        self.reads, self.taps = things.reads, things.taps

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Return the outputs of both parts."""
        return {**self.things(features, inputs), "areas": self.pixels(features, inputs)["map"]}

    def attention(self, features: Features) -> list[AttentionMap]:
        """Return where each query looked, layer by layer: weights (b, h, q, row·col)."""
        return self.things.attention(features)

    def stages(
        self, features: Features, images: Tensor
    ) -> list[tuple[str, str, tuple[tuple[str, Tensor], ...]]]:
        """Return the intermediate steps for one image: a name, an explanation, and maps with captions."""
        return [*self.things.stages(features, images), *self.pixels.stages(features, images)]
