"""The head of CLIP: images and texts as unit vectors of one space (Radford et al. 2021, arXiv:2103.00020, figure 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.heads import NO_INPUTS, Output, PooledHead
from vitrail.layers.pooling import build_pool
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Features, FeatureSpec

LARGEST_SCALE = math.log(100)
"""Logarithm of the largest factor of the cosines (§2.5)."""


class Tower(Protocol):
    """A network from ids of word pieces, int64 (b, n), to one vector (b, `width`) per text."""

    width: int

    def __call__(self, tokens: Tensor, record: Recorder | None = None) -> Tensor:
        """Int64 (b, n) -> (b, width)."""


class ContrastiveHead(PooledHead):
    """Pool and project the image, encode and project its text, both to unit vectors of `embed` numbers.

    Features -> `image` (b, embed); with the input `tokens`, int64 (b, n), also `text` (b, embed). `tower` encodes the
    texts (`TextTower`, or any `Tower`). With `hidden` the projections are MLPs with so many hidden values, else linear
    layers without bias. The learned `scale` is the logarithm of the factor of the cosines; `bias` is added to them by
    the sigmoid loss only (SigLIP, Zhai et al. 2023, arXiv:2303.15343, algorithm 1, which begins with a `scale` of ln 10
    and a `bias` of -10).
    """

    tower: nn.Module

    def __init__(
        self,
        spec: FeatureSpec,
        embed: int,
        tower: Tower,
        *,
        pool: str | None = None,
        hidden: int = 0,
        scale: float = math.log(1 / 0.07),
        bias: float = 0.0,
    ) -> None:
        super().__init__()
        assert isinstance(tower, nn.Module), "a text tower is a module, so that it is trained and stored"
        self.read_pool(build_pool(spec, pool or spec.pool))
        self.project = projection(self.pool.width, embed, hidden)
        self.tower = tower
        self.project_text = projection(tower.width, embed, hidden)
        self.scale = nn.Parameter(torch.tensor(scale))
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Features with tokens (b, n, d) -> `image` (b, embed); with the input `tokens` also what the losses need.

        These are `text` (b, embed), and for each image the `factor` of the cosines and the `bias`: (b,).
        """
        image: Tensor = self.pool(features)
        if "tokens" not in inputs:
            return {"image": self.image_vectors(image)}
        return self.pairs(image, self.tower(inputs["tokens"]))

    def pairs(self, image: Tensor, text: Tensor) -> Output:
        """Return what the losses need of pooled images and encoded texts: (b, d) and (b, width)."""
        projected = {"image": self.image_vectors(image), "text": self.text_vectors(text)}
        same = image.shape[:1]
        return {**projected, "factor": self.factor().expand(same), "bias": self.bias.expand(same)}

    def image_vectors(self, pooled: Tensor) -> Tensor:
        """Pooled images (b, d) -> unit vectors (b, embed)."""
        return unit(self.project(pooled))

    def text_vectors(self, encoded: Tensor) -> Tensor:
        """Encoded texts (n, width) -> unit vectors (n, embed)."""
        return unit(self.project_text(encoded))

    def texts(self, tokens: Tensor, record: Recorder | None = None) -> Tensor:
        """Ids of word pieces, int64 (n, context) -> unit vectors (n, embed); `record` collects the attention."""
        return self.text_vectors(self.tower(tokens, record))

    def factor(self) -> Tensor:
        """Return the factor of the cosines, at most 100: ()."""
        # The parameter itself is limited, as in the code of CLIP: behind a clamp it would never get a gradient again.
        if self.training:
            with torch.no_grad():
                self.scale.clamp_(max=LARGEST_SCALE)
        return self.scale.clamp(max=LARGEST_SCALE).exp()

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        """Unit vectors (b, embed) and (n, embed) -> logits of the softmax loss, (b, n): the scaled cosines."""
        return self.factor() * image @ text.T


def projection(width: int, embed: int, hidden: int = 0) -> nn.Module:
    """Return a linear layer without bias, or an MLP with `hidden` hidden values: (…, width) -> (…, embed)."""
    if hidden:
        return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, embed))
    layer = nn.Linear(width, embed, bias=False)
    nn.init.normal_(layer.weight, std=width**-0.5)
    return layer


class ImageHalf(PooledHead):
    """The half of a contrastive head that reads images, with the same weights: no text tower is copied with it."""

    def __init__(self, head: ContrastiveHead) -> None:
        super().__init__()
        self.read_pool(head.pool)
        self.project = head.project

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Features with tokens (b, n, d) -> `image` (b, embed), of length 1."""
        return {"image": unit(self.project(self.pool(features)))}


def unit(x: Tensor) -> Tensor:
    """Return vectors of length 1, computed in float32: (…, e) -> (…, e)."""
    return F.normalize(x.float(), dim=-1)
