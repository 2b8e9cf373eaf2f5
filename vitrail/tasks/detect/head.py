"""The head of detection: a projector of the encoder's maps, and a decoder of queries."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vitrail.layers.heads import NO_INPUTS, Head, Output
from vitrail.layers.projector import Projector
from vitrail.layers.query_decoder import Decoded, DecoderShape, QueryDecoder
from vitrail.layers.sdpa import AttentionMap, Recorder
from vitrail.layers.tokens import Features, FeatureSpec

SHOWN = 3
"""Boxes whose attention is drawn."""


class DetectHead(Head):
    """Features -> `boxes` (b, q, 4), centre and sides in shares of the input, `logits` (b, q, k), `proposals` (b, n).

    `proposals` are the largest logits that the cells of the map propose, before the best become queries. In training
    the same of every layer, group and proposal: `train.boxes` (b, layer, group·q, 4), `train.logits`, and
    `train.first.boxes` (b, group·q, 4), `train.first.logits`.
    """

    words = "maps of several depths"

    def __init__(self, spec: FeatureSpec, classes: int, shape: DecoderShape) -> None:
        super().__init__()
        self.projector = Projector(spec, shape.width)
        self.reads, self.taps = ("levels" if self.projector.levels else "patches"), self.projector.taps
        self.decoder = QueryDecoder(shape, classes)

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Return boxes, logits and proposals."""
        return self.output(self.decoded(features))

    def output(self, found: Decoded) -> Output:
        """Return boxes, logits and proposals of what the decoder found."""
        boxes, logits = found.layers
        queries = boxes.shape[2] // (self.decoder.shape.groups if self.training else 1)
        output = {
            "boxes": boxes[:, -1, :queries],
            "logits": logits[:, -1, :queries],
            "proposals": found.proposals.amax(-1),
        }
        if not self.training:
            return output
        every = {"train.boxes": boxes, "train.logits": logits}
        return {
            **output,
            **every,
            "train.first.boxes": found.first.boxes,
            "train.first.logits": found.first.logits,
        }

    def decoded(self, features: Features, record: Recorder | None = None) -> Decoded:
        """Return what all layers found; a recorder gets their attention to the map."""
        return self.decoder(self.projector(features), record)  # type: ignore[no-any-return]

    def attention(self, features: Features) -> list[AttentionMap]:
        """Return where each query looked, layer by layer: weights (b, h, q, row·col)."""
        recorder = Recorder()
        self.decoded(features, recorder)
        return recorder.maps

    def stages(
        self, features: Features, images: Tensor
    ) -> list[tuple[str, str, tuple[tuple[str, Tensor], ...]]]:
        """Return the intermediate steps for one image: a name, an explanation, and maps with captions."""
        recorder = Recorder()
        maps = self.projector(features)
        found = self.decoder(maps, recorder)
        grid = maps.shape[-2:]
        proposed = found.proposals.amax(-1).sigmoid().view(1, *grid)
        logits = found.layers.logits[0, -1].amax(-1)
        looks = tuple(
            (f"box {turn}, layer {layer}", one.weights[0, :, query].mean(0).view(1, *grid))
            for turn, query in enumerate(logits.topk(min(SHOWN, len(logits))).indices.tolist(), 1)
            for layer, one in enumerate(recorder.maps, 1)
        )
        queries, layers = found.layers.boxes.shape[2], len(recorder.maps)
        return [
            (
                "One map",
                "Convolutions join the maps of several depths to one. The image shows its first three principal "
                "components.",
                (("the map that proposals and queries read", maps[0]),),
            ),
            (
                "Proposals",
                f"Every cell proposes a box and how probable an object is there. The best {queries} become the places "
                "where queries start.",
                (("how probable an object is at each cell", proposed),),
            ),
            (
                "Decoder",
                f"In each of {layers} layers the queries attend to each other, and then each reads a few places of the "
                "map near its box. Bright cells are those that it reads, the mean over heads, for the most confident "
                "boxes.",
                looks,
            ),
        ]
