"""The base class of all heads, and the heads of published classifiers."""

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
from vitrail.layers.tokens import Pool as Kind

Output = dict[str, Tensor]
"""The output of a network: tensors by name, batch axis first."""

Reads = Literal["prefix", "patches", "levels"]
"""What a head reads: the prefix tokens only, all output tokens, or maps of several depths."""

NO_INPUTS: Mapping[str, Tensor] = MappingProxyType({})


class Head(nn.Module):
    """From features to outputs by name; `reads` is the part of the features that it uses.

    For a head that reads the prefix only, the last block does not compute the patches (`Encoder.summarise`). A head
    that reads levels gets the stages of a pyramid, or the blocks in `taps` of a column.
    """

    reads: Reads = "patches"
    taps: tuple[int, ...] = ()
    words: str = "the tokens"  # what it reads, in words for users
    apart: bool = False  # whether it has a separate classifier for a teacher
    pools: bool = False  # whether it first pools each image to one vector
    __call__: Callable[..., Output]

    @property
    def pooling(self) -> Kind | None:
        """How it pools an image to one vector; None for a head that does not."""
        return None

    @property
    def from_prefix(self) -> bool:
        """Whether it reads prefix tokens only; explanations then trace the attention back from the prefix."""
        return self.reads == "prefix"

    def vectors(self, features: Features) -> Tensor:
        """Return the pooled vector of each image, (b, d). RunError for a head that does not pool."""
        raise RunError("This head does not pool an image to one vector, so there are no features to return.")

    @abstractmethod
    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Return the outputs; `inputs` are the inputs of the batch, images and others."""


class PooledHead(Head):
    """A head that first pools the tokens to one vector; this vector is also the feature vector of the image."""

    pool: Pool
    pools = True

    @property
    def pooling(self) -> Kind:
        """The kind of its pool."""
        return self.pool.kind

    @property
    def from_prefix(self) -> bool:
        """Whether its vector is the class token, or the network's own pooling if that uses the prefix."""
        return self.pool.from_prefix

    def vectors(self, features: Features) -> Tensor:
        """Features -> (b, d)."""
        pooled: Tensor = self.pool(features)
        return pooled

    def read_pool(self, pool: Pool) -> None:
        """Set the pool, and `reads` and `words` accordingly."""
        self.pool = pool
        self.reads = "prefix" if pool.reads_prefix else "patches"
        self.words = pool.words


class LinearHead(PooledHead):
    """Pool, an optional layer with tanh (the `pre_logits` of arXiv:2010.11929, §3.1), and a linear classifier.

    Features -> logits (b, classes). It is initialised with zeros, so that untrained probabilities are equal.
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

    Features -> logits (b, classes): the logits of the class token plus `SHARE` times the highest logit of the kept
    tokens, for each class.
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

    Features -> logits (b, classes), the mean of both. In training also the separate logits: `train.labels` for the
    labels and `train.teacher` for the teacher.
    """

    apart = True

    def __init__(self, spec: FeatureSpec, classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.read_pool(Pool(spec, "cls"))
        self.words = "the class token and the distillation token"
        self.places = (spec.prefix.index("cls"), spec.prefix.index("dist"))
        self.linear, self.dist = nn.Linear(spec.width, classes), nn.Linear(spec.width, classes)
        for layer in (self.linear, self.dist):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Features with tokens (b, n, d) -> logits (b, classes)."""
        x = self.dropout(features.tokens.x)
        cls, dist = self.linear(x[:, self.places[0]]), self.dist(x[:, self.places[1]])
        output = {"logits": (cls + dist) / 2}
        return {**output, "train.labels": cls, "train.teacher": dist} if self.training else output
