"""The head of a classification: pooling and one linear layer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from vitrail.layers.heads import NO_INPUTS, DenseHead, DistilledHead, Head, Output, PooledHead
from vitrail.layers.pooling import Pool
from vitrail.layers.tokens import Features, FeatureSpec
from vitrail.layers.tokens import Pool as Kind


class ClassHead(PooledHead):
    """Pool the features and compute one logit per class: Features -> logits (b, k)."""

    def __init__(self, spec: FeatureSpec, classes: int, pool: Kind | None, dropout: float) -> None:
        super().__init__()
        self.read_pool(Pool(spec, pool))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(self.pool.width, classes)
        # Some published classifiers read every token (`DenseHead`); the head of such a network does the same.
        self.dense = nn.Linear(spec.width, classes) if spec.dense and pool is None else None
        if self.dense is not None:
            self.reads = "patches"
        for layer in (self.linear, self.dense):
            if layer is not None:
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Return logits."""  # -> (b, k)
        logits: Tensor = self.linear(self.dropout(self.pool(features)))
        if self.dense is not None:
            best: Tensor = self.dense(self.dropout(features.tokens.patches)).amax(1)
            logits = logits + DenseHead.SHARE * best
        return {"logits": logits}


def class_head(spec: FeatureSpec, classes: int, pool: Kind | None, dropout: float) -> Head:
    """Return the head from Features to (b, k); two heads if there is a distillation token and no pool is set."""
    if pool is None and "dist" in spec.prefix:
        return DistilledHead(spec, classes, dropout=dropout)
    return ClassHead(spec, classes, pool, dropout)
