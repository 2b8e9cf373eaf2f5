"""Class-specific relevance: Chefer, Gur and Wolf 2021, "Generic Attention-model Explainability", arXiv:2103.15679."""

from __future__ import annotations

import torch
from torch import Tensor

from vitrail.explainers import rollout
from vitrail.explainers.rollout import Layer, follow, in_place, on_grid
from vitrail.explainers.settings import NoSettings
from vitrail.explainers.subject import Subject
from vitrail.layers.attend import AttentionMap, Recorder
from vitrail.layers.tokens import Features, FeatureSpec


class Relevance:
    """What speaks for an answer: attention times its gradient, followed through all layers back to the pixels.

    Ā = E_h[(∇A ⊙ A)⁺] (eq. 5), R ← R + Ā R from R = I (eq. 6), of which the rows of the tokens that the head
    reads are kept. The paper reads the class token's row. Pooling is attention, too: where a head reads several
    tokens (a mean, class and distillation token), each row counts by the same rule, (∂score/∂x · x)⁺, its share
    in the score.
    """

    name = "relevance"
    Settings = NoSettings

    def __init__(self, settings: NoSettings = NoSettings()) -> None:
        self.settings = settings

    @staticmethod
    def fits(spec: FeatureSpec) -> bool:
        """Tell whether a network shows its attention."""
        return spec.attention in {"softmax", "linear"}

    def __call__(self, subject: Subject, pixels: Tensor) -> Tensor:
        """Return what each place adds to the score: (b, channels, height, width) -> (b, row, col), 0 or more."""
        recorder = Recorder()
        with torch.enable_grad():
            # Parameters are frozen: without a gradient at the input the first layers would not be in the graph.
            asked = pixels.to(subject.device).detach().requires_grad_()
            seen = subject.look(asked, recorder)
            wanted = [*(one.weights for one in recorder.maps), seen.features.tokens.x]
            *gradients, at_tokens = torch.autograd.grad(seen.score.sum(), wanted, allow_unused=True)
        with torch.no_grad():
            layers = [_layer(one, gradient) for one, gradient in zip(recorder.maps, gradients, strict=True)]
            row = _read(subject, seen.features, at_tokens)
            return on_grid(follow(layers, row, seen.features))


def _layer(one: AttentionMap, gradient: Tensor | None) -> Layer:
    # A call without gradient had no part in the score.
    share = one.weights if gradient is None else (gradient * one.weights).clamp(min=0)
    mean = one._replace(weights=share.mean(1, keepdim=True) * (gradient is not None))
    return Layer(lambda row: row + mean.pull(row), one.grid, one.prefix)


def _read(subject: Subject, features: Features, gradient: Tensor | None) -> Tensor:
    """Return how much of the score each last token carries to the head: (b, n), adding to 1."""
    if gradient is None:  # the network pools in a way of its own, from tokens that nobody sees
        return rollout.start(subject, features)
    carried = (features.tokens.x * gradient).sum(-1)
    positive = carried.clamp(min=0)
    # Of a single token all is read, whatever its sign.
    row = torch.where(positive.sum(1, keepdim=True) > 0, positive, carried.abs())
    total = row.sum(1, keepdim=True)
    share = torch.where(total > 0, row / total.clamp(min=torch.finfo(row.dtype).tiny), 1 / row.shape[1])
    return in_place(share, features.tokens)
