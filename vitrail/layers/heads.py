"""What stands on an encoder: the base of all heads, and the heads of published classifiers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from vitrail.core.errors import RunError
from vitrail.layers.pooling import Pool, build_pool
from vitrail.layers.tokens import Features, FeatureSpec

Output = dict[str, Tensor]
"""What a network answers: tensors by name, batch axis first."""

Reads = Literal["prefix", "patches", "levels"]
"""What a head looks at: tokens in front of the patches alone, the last tokens, or maps of several depths."""

NO_INPUTS: Mapping[str, Tensor] = MappingProxyType({})


class Head(nn.Module):
    """From features to an output by name; `reads` says what of the features it looks at.

    A head that reads the prefix alone is spared what the last block computes for the patches (`Encoder.summarise`);
    one that reads levels gets the stages of a pyramid, or of a column the blocks that it names in `taps`.
    """

    reads: Reads = "patches"
    taps: tuple[int, ...] = ()
    words: str = "the tokens"  # what it reads, for people
    apart: bool = False  # whether it has a classifier of its own for a teacher
    pools: bool = False  # whether it first makes one vector of each image
    __call__: Callable[..., Output]

    @property
    def from_prefix(self) -> bool:
        """Whether what it reads of the tokens stands in front of the patches, where attention is followed back from."""
        return self.reads == "prefix"

    def vectors(self, features: Features) -> Tensor:
        """Return the one vector that it makes of each image, (b, d), where it `pools`; else RunError."""
        raise RunError("This head reads no single vector of an image, so there are no features to give.")

    @abstractmethod
    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Return the output; `inputs` are those of the batch, images and others."""


class PooledHead(Head):
    """A head that first makes one vector of the tokens; that vector stands for the image where one is asked for."""

    pool: Pool
    pools = True

    @property
    def from_prefix(self) -> bool:
        """Whether its vector is the class token, or the network's own, which is made of it where there is one."""
        return self.pool.kind in ("cls", "own")

    def vectors(self, features: Features) -> Tensor:
        """Return what it pools: Features -> (b, d)."""
        pooled: Tensor = self.pool(features)
        return pooled

    def read_pool(self, pool: Pool) -> None:
        """Take a pool, and say what is read through it."""
        self.pool = pool
        self.reads = "prefix" if pool.reads_prefix else "patches"
        self.words = pool.words


class LinearHead(PooledHead):
    """Pool, an optional layer with tanh (the `pre_logits` of arXiv:2010.11929, §3.1), and one number a class.

    Features -> logits (b, classes). Starts at zero, so that an untrained classifier is even.
    """

    def __init__(self, spec: FeatureSpec, classes: int, *, pool: str | None = None, hidden: int = 0) -> None:
        super().__init__()
        self.read_pool(build_pool(spec, pool or spec.pool))
        self.pre_logits = nn.Linear(self.pool.width, hidden) if hidden else None
        self.linear = nn.Linear(hidden or self.pool.width, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Features with tokens (b, n, d) -> logits (b, classes)."""
        x: Tensor = self.pool(features)
        if self.pre_logits is not None:
            x = torch.tanh(self.pre_logits(x))
        return {"logits": self.linear(x)}


class DenseHead(PooledHead):
    """A classifier on the class token and one on every other token (LV-ViT, Jiang et al. 2021, arXiv:2104.10858).

    Features -> logits (b, classes): the answer of the class token plus `SHARE` times, for each class, the highest
    answer of the tokens that are left.
    """

    SHARE = 0.25

    def __init__(self, spec: FeatureSpec, classes: int) -> None:
        super().__init__()
        self.read_pool(build_pool(spec, "cls"))
        self.reads = "patches"
        self.linear, self.dense = nn.Linear(spec.width, classes), nn.Linear(spec.width, classes)
        for layer in (self.linear, self.dense):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Features with tokens (b, n, d) -> logits (b, classes)."""
        best = self.dense(features.tokens.patches).amax(1)
        return {"logits": self.linear(self.pool(features)) + self.SHARE * best}


class DistilledHead(PooledHead):
    """One classifier on the class token, one on the distillation token (arXiv:2012.12877, §3).

    Features -> logits (b, classes), the mean of both; in training also each of them, `train.labels` for the labels and
    `train.teacher` for the teacher.
    """

    apart = True

    def __init__(self, spec: FeatureSpec, classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.read_pool(Pool(spec, "cls"))
        self.words = "the class token, and beside it the distillation token,"
        self.places = (spec.prefix.index("cls"), spec.prefix.index("dist"))
        self.linear, self.dist = nn.Linear(spec.width, classes), nn.Linear(spec.width, classes)
        for layer in (self.linear, self.dist):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Features with tokens (b, n, d) -> logits (b, classes)."""
        x = self.dropout(features.tokens.x)
        cls, dist = self.linear(x[:, self.places[0]]), self.dist(x[:, self.places[1]])
        answer = {"logits": (cls + dist) / 2}
        return {**answer, "train.labels": cls, "train.teacher": dist} if self.training else answer
