"""Class-specific relevance: Chefer, Gur and Wolf 2021, "Generic Attention-model Explainability", arXiv:2103.15679."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psutil
import torch
from torch import Tensor

from vitrail.core.errors import InsufficientMemoryError
from vitrail.explainers import rollout
from vitrail.explainers.grids import after_joining, before_joining, gathered, spread
from vitrail.explainers.methods import NoSettings
from vitrail.explainers.rollout import Layer, TokenWeights, follow, in_place, on_grid
from vitrail.explainers.target import Subject
from vitrail.layers.sdpa import AttentionMap, Recorder, TokenIndex
from vitrail.layers.tokens import Features
from vitrail.runs.network import Network


class Relevance:
    """Evidence for a prediction: attention times its gradient, followed through all layers back to the pixels.

    Ā = E_h[(∇A ⊙ A)⁺] (eq. 5), R ← R + Ā R from R = I (eq. 6), of which only the rows of the
    tokens that the head reads are computed. The paper reads the row of the class token. Pooling is also attention: if a
    head reads several tokens (a mean, class and distillation token), each row is weighted by the same rule,
    (∂score/∂x · x)⁺, its share in the score; when patches are read, what they gathered from others and their own
    content have equal weight (eqs. 8 and 9).
    """

    name = "relevance"
    Settings = NoSettings

    def __init__(self, settings: NoSettings = NoSettings()) -> None:
        self.settings = settings

    @staticmethod
    def fits(network: Network) -> bool:
        """Return whether the network exposes its attention."""
        return network.spec.shows_attention

    def __call__(self, subject: Subject, pixels: Tensor) -> Tensor:
        """Return the contribution of each cell to the score: (b, channels, height, width) -> (b, row, col), 0 or more.

        Raises:
            InsufficientMemoryError: the attention of all layers and its gradient need more than the free memory.
        """
        recorder = _BoundedRecorder(free_memory(subject.device))
        with torch.enable_grad():
            # Parameters are frozen: without a gradient at the input the first layers would not be in the graph.
            inputs = pixels.to(subject.device).detach().requires_grad_()
            target = subject.look(inputs, recorder)
            wanted = [*(one.weights for one in recorder.maps), target.features.tokens.x]
            *gradients, at_tokens = torch.autograd.grad(target.score.sum(), wanted, allow_unused=True)
        with torch.no_grad():
            shares = [_share(one, gradient) for one, gradient in zip(recorder.maps, gradients, strict=True)]
            row = shares[-1].evened(_read(subject, target.features, at_tokens))
            return on_grid(_pooled(shares, row, target.features))


def free_memory(device: torch.device) -> int:
    """Return the free memory of a device in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


class _BoundedRecorder(Recorder):
    """Records all attention, as long as it and its gradient (of the same size) fit into `room` bytes."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.held = room, 0

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, where: Callable[[], TokenIndex]
    ) -> Tensor:
        """Record one call, or raise before its weights use memory that is not available."""
        self._fit(q.shape[:-1].numel() * k.shape[-2] * q.element_size(), q.shape[-2])
        return super().attend(q, k, v, bias, where)

    def add(self, weights: Tensor, place: TokenIndex) -> None:
        """Keep one call, or raise if there is no memory for its gradient."""
        self._fit(weights.numel() * weights.element_size(), place.size[0])
        super().add(weights, place)
        self.held += 2 * weights.numel() * weights.element_size()

    def _fit(self, size: int, tokens: int) -> None:
        held = self.held + 2 * size
        if held > self.room:
            raise InsufficientMemoryError(
                f"Relevance keeps the attention of all layers in memory: {len(self.maps) + 1} layers with "
                f"{tokens} tokens need {held / 1e9:.1f} GB, and {self.room / 1e9:.1f} GB are free. "
                "Use a smaller input, or --method rollout or occlusion, which need much less memory."
            )


def _share(one: AttentionMap, gradient: Tensor | None) -> AttentionMap:
    """Return Ā of one call as a single head (eq. 5); 0 for a call without gradient, which does not affect the score."""
    if gradient is None:
        return one._replace(weights=torch.zeros_like(one.weights[:, :1]))
    return one._replace(weights=(gradient * one.weights).clamp(min=0).mean(1, keepdim=True))


def _pooled(shares: Sequence[AttentionMap], row: Tensor, features: Features) -> TokenWeights:
    """Follow a row over the tokens that the head reads through all layers (eq. 6).

    For one prefix token this is its row of R. For patches, what they gathered from others and their own content have
    equal weight: R̄ = R̂ / (R̂ 1) + I with R̂ = R - I (eqs. 8 and 9).
    """
    if not bool(row[:, features.tokens.prefix :].any()):
        return follow([Layer(_adding(share), share.grid, share.prefix) for share in shares], row, features)
    sums = _sums(shares, features)  # R̂ 1
    own = row / sums.clamp(min=torch.finfo(row.dtype).tiny) * (sums > 0)
    through = torch.zeros_like(own)
    grid, prefix = features.tokens.grid, features.tokens.prefix
    for share in reversed(shares):
        row, own, through = (spread(one, grid, share.grid, prefix) for one in (row, own, through))
        grid = share.grid
        # R̂ ← R̂ + Ā (R̂ + I), without subtracting I
        mine, more = (before_joining(one, prefix, share.prefix) for one in (own, through))
        more = more + share.left_multiply(more + mine)
        through = after_joining(more, through, prefix, share.prefix)
    return TokenWeights(row + through, grid, prefix)


def _adding(share: AttentionMap) -> Callable[[Tensor], Tensor]:
    return lambda row: row + share.left_multiply(row)


def _sums(shares: Sequence[AttentionMap], features: Features) -> Tensor:
    """Return the sum of every row of R̂: (b, prefix + row·col) over the last tokens."""
    grid, prefix = shares[0].grid, shares[0].prefix
    column = shares[0].weights.new_zeros(features.tokens.x.shape[0], shares[0].size[1])
    for share in shares:
        column, grid = gathered(column, grid, share.grid, prefix), share.grid
        joined = column.new_zeros(len(column), share.prefix)
        column, prefix = after_joining(column, joined, share.prefix, prefix), share.prefix
        column = share.evened(column)  # a merged token goes on with the mean of its patches
        column = column + share.right_multiply(column + 1)
    return gathered(column, grid, features.tokens.grid, prefix)


def _read(subject: Subject, features: Features, gradient: Tensor | None) -> Tensor:
    """Return the share of each last token in the score: (b, n), with sum 1."""
    if gradient is None:  # the network pools in its own way, from tokens that are not exposed
        return rollout.start(subject, features)
    carried = (features.tokens.x * gradient).sum(-1)
    positive = carried.clamp(min=0)
    # If no share is positive (such as one token with a negative share), use absolute values.
    row = torch.where(positive.sum(1, keepdim=True) > 0, positive, carried.abs())
    total = row.sum(1, keepdim=True)
    share = torch.where(total > 0, row / total.clamp(min=torch.finfo(row.dtype).tiny), 1 / row.shape[1])
    return in_place(share, features.tokens)
