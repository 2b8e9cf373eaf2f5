"""What published classifiers put on an encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitrail.layers.pool import Pool, build_pool
from vitrail.layers.tokens import Features, FeatureSpec


class LinearHead(nn.Module):
    """Pool, an optional layer with tanh (the `pre_logits` of arXiv:2010.11929, §3.1), and one number a class.

    Features -> (b, classes). Starts at zero, so that an untrained classifier is even.
    """

    def __init__(self, spec: FeatureSpec, classes: int, *, pool: str | None = None, hidden: int = 0) -> None:
        super().__init__()
        self.pool = build_pool(spec, pool or spec.pool)
        self.pre_logits = nn.Linear(self.pool.width, hidden) if hidden else None
        self.linear = nn.Linear(hidden or self.pool.width, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @property
    def reads_prefix(self) -> bool:
        """Whether the tokens in front of the patches are all it looks at."""
        return self.pool.reads_prefix

    def forward(self, features: Features) -> Tensor:
        """Features with tokens (b, n, d) -> logits (b, classes)."""
        x: Tensor = self.pool(features)
        if self.pre_logits is not None:
            x = torch.tanh(self.pre_logits(x))
        logits: Tensor = self.linear(x)
        return logits


class DenseHead(nn.Module):
    """A classifier on the class token and one on every other token (LV-ViT, Jiang et al. 2021, arXiv:2104.10858).

    Features -> (b, classes): the answer of the class token plus `SHARE` times, for each class, the highest answer
    of the tokens that are left.
    """

    SHARE = 0.25

    def __init__(self, spec: FeatureSpec, classes: int) -> None:
        super().__init__()
        self.pool = build_pool(spec, "cls")
        self.linear, self.dense = nn.Linear(spec.width, classes), nn.Linear(spec.width, classes)
        for layer in (self.linear, self.dense):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Features) -> Tensor:
        """Features with tokens (b, n, d) -> logits (b, classes)."""
        best = self.dense(features.tokens.patches).amax(1)
        logits: Tensor = self.linear(self.pool(features)) + self.SHARE * best
        return logits


class DistilledHead(nn.Module):
    """One classifier on the class token, one on the distillation token (arXiv:2012.12877, §3)."""

    reads_prefix = True

    def __init__(self, spec: FeatureSpec, classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.pool = Pool(spec, "cls")  # what stands for a picture where a vector is asked for
        self.places = (spec.prefix.index("cls"), spec.prefix.index("dist"))
        self.linear, self.dist = nn.Linear(spec.width, classes), nn.Linear(spec.width, classes)
        for layer in (self.linear, self.dist):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def both(self, features: Features) -> tuple[Tensor, Tensor]:
        """Return the logits of the class token, for the labels, and of the other, for the teacher: (b, k) each."""
        x = self.dropout(features.tokens.x)
        return self.linear(x[:, self.places[0]]), self.dist(x[:, self.places[1]])

    def forward(self, features: Features) -> Tensor:
        """Return the answer: the mean of both, (b, classes)."""
        cls, dist = self.both(features)
        return (cls + dist) / 2
