"""The head of instance segmentation: that of detection with one mask branch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vitrail.layers.heads import NO_INPUTS, Output
from vitrail.layers.mask_branch import FINE, MaskBranch
from vitrail.layers.query_decoder import DecoderShape
from vitrail.layers.tokens import Features, FeatureSpec
from vitrail.tasks.detect.head import SHOWN, DetectHead


class InstanceHead(DetectHead):
    """Features -> the outputs of `DetectHead`, and `masks` (b, q, row, col), logits at a quarter of the input.

    In training, instead of masks, their factors of every layer and group: `train.masks.queries` (b, layer, group·q, d),
    `train.masks.cells` (b, layer, d, row, col) and `train.masks.bias` (b,). Only the masks of matched queries are ever
    multiplied.
    """

    def __init__(self, spec: FeatureSpec, classes: int, shape: DecoderShape) -> None:
        super().__init__(spec, classes, shape)
        self.masks = MaskBranch(shape.width, shape.layers)
        self.stride = spec.strides[-1]

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Return boxes, logits, proposals and masks."""
        maps = self.projector(features)
        found = self.decoder(maps)
        output = self.output(found)
        factors = self.masks(maps, found.vectors, self._size(maps, inputs))
        if not self.training:
            return {**output, "masks": self.masks.masks(factors[-1])}
        return {
            **output,
            "train.masks.queries": torch.stack([one.queries for one in factors], 1),
            "train.masks.cells": torch.stack([one.cells for one in factors], 1),
            "train.masks.bias": self.masks.bias.expand(len(maps)),
        }

    def stages(
        self, features: Features, images: Tensor
    ) -> list[tuple[str, str, tuple[tuple[str, Tensor], ...]]]:
        """Return the intermediate steps of detection for one image, and the masks of the most confident objects."""
        output = self(features, {"images": images})
        best = output["logits"][0].amax(-1).topk(min(SHOWN, output["logits"].shape[1])).indices.tolist()
        shown = tuple(
            (f"object {turn}", output["masks"][:, query].sigmoid()) for turn, query in enumerate(best, 1)
        )
        return [
            *super().stages(features, images),
            (
                "Masks",
                "The map is enlarged to a quarter of the input. The mask of an object is the product of its query with "
                "every cell; bright cells belong to it.",
                shown,
            ),
        ]

    def _size(self, maps: Tensor, inputs: Mapping[str, Tensor]) -> tuple[int, int]:
        """Return the size of the input in pixels; without it, that which the cells of the map span."""
        if "images" in inputs:
            height, width = inputs["images"].shape[-2:]
        else:
            height, width = (max(FINE, self.stride * cells) for cells in maps.shape[-2:])
        return height, width
