"""Attention rollout: Abnar and Zuidema 2020, arXiv:2005.00928."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vitrail.core.errors import SettingError
from vitrail.explainers.grids import Grid, after_joining, before_joining, spread
from vitrail.explainers.streaming import Inputs, Step, pull_through, with_unasked
from vitrail.explainers.target import Subject
from vitrail.layers.sdpa import AttentionMap, Recorder
from vitrail.layers.tokens import Features, Tokens, class_tokens
from vitrail.runs.network import Network


@dataclass(frozen=True)
class RolloutSettings:
    """How heads are fused into one matrix, and what is discarded.

    `heads` takes their mean, largest or smallest weight; `discard` is the share of each row, its smallest
    weights, that is set to 0; `skip` adds the residual connection, as Abnar and Zuidema do (without it: the
    plain product that the paper of ViT describes, arXiv:2010.11929, app. D.8).
    """

    heads: Literal["mean", "max", "min"] = "mean"
    discard: float = 0.0
    skip: bool = True

    def __post_init__(self) -> None:
        """Refuse other reductions and shares (SettingError)."""
        if self.heads not in ("mean", "max", "min"):
            raise SettingError(f"--heads is mean, max or min, not {self.heads!r}.")
        if not 0 <= self.discard < 1:
            raise SettingError(
                f"--discard is the share of each row that is set to 0, at least 0 and below 1, not {self.discard:g}."
            )

    def fuse(self, weights: Tensor) -> Tensor:
        """Fuse the heads into one matrix whose rows sum to 1: (b·g, h, q, k) -> (b·g, 1, q, k)."""
        match self.heads:
            case "mean":
                fused = weights.mean(1, keepdim=True)
            case "max":
                fused = weights.amax(1, keepdim=True)
            case "min":
                fused = weights.amin(1, keepdim=True)
        if out := int(self.discard * fused.shape[-1]):
            smallest = fused.topk(out, largest=False).indices
            fused = fused.scatter(-1, smallest, 0.0)
        return fused / fused.sum(-1, keepdim=True).clamp(min=torch.finfo(fused.dtype).tiny)


class Rollout:
    """Follow attention from the class token (from all patches, if there is none) back to the pixels."""

    name = "rollout"
    Settings = RolloutSettings

    def __init__(self, settings: RolloutSettings = RolloutSettings()) -> None:
        self.settings = settings

    @staticmethod
    def fits(network: Network) -> bool:
        """Return whether the network exposes the attention that rollout follows."""
        return network.spec.shows_attention

    @torch.inference_mode()
    def __call__(self, subject: Subject, pixels: Tensor) -> Tensor:
        """Return where the network looked: (b, channels, height, width) -> (b, row, col), each with sum at most 1.

        The map is on the grid of the first block. Attention is recomputed from the input of each block, a few
        queries at a time: memory grows with the number of tokens, not with its square.
        """
        recorder = Inputs()
        features = subject.network.encoder(pixels.to(subject.device), record=recorder)
        if len(recorder.steps) == subject.spec.blocks:
            softmax = subject.spec.attention == "softmax"
            layers = [_streamed(step, self.settings, softmax) for step in recorder.steps]
        else:  # a block that does not call attention exactly once
            layers = dense(subject, pixels, self.settings)
        return on_grid(follow(layers, start(subject, features), features))


class Layer(NamedTuple):
    """One layer of a rollout: maps a row vector over its outputs to a row vector over its inputs."""

    pull: Callable[[Tensor], Tensor]  # (b, n) -> (b, n)
    grid: Grid
    prefix: int


class TokenWeights(NamedTuple):
    """A row vector over tokens: (b, prefix + row·col), on the grid of the first layer."""

    row: Tensor
    grid: Grid
    prefix: int


def dense(subject: Subject, pixels: Tensor, settings: RolloutSettings) -> list[Layer]:
    """Return the layers of a network, from fully recorded attention."""
    recorder = Recorder()
    subject.network.encoder(pixels.to(subject.device), record=recorder)
    return recorded(recorder.maps, settings)


def recorded(maps: Sequence[AttentionMap], settings: RolloutSettings = RolloutSettings()) -> list[Layer]:
    """Return one layer per recorded attention map."""
    return [Layer(_dense_pull(one, settings), one.grid, one.prefix) for one in maps]


def _dense_pull(one: AttentionMap, settings: RolloutSettings) -> Callable[[Tensor], Tensor]:
    fused = one._replace(weights=settings.fuse(one.weights))

    def pull(row: Tensor) -> Tensor:
        return _mixed(row, with_unasked(fused.left_multiply(row), one.unasked(row)), settings.skip)

    return pull


def _streamed(step: Step, settings: RolloutSettings, softmax: bool) -> Layer:
    # Rows of softmax already sum to 1: the product that pulls computes their mean, which is faster.
    plain = softmax and settings.heads == "mean" and not settings.discard
    fuse = _identity if plain else settings.fuse

    def pull(row: Tensor) -> Tensor:
        return _mixed(row, pull_through(step, row, fuse), settings.skip)

    return Layer(pull, step.grid, step.prefix)


def _identity(weights: Tensor) -> Tensor:
    return weights


def _mixed(row: Tensor, pulled: Tensor, skip: bool) -> Tensor:
    return 0.5 * row + 0.5 * pulled if skip else pulled  # eq. 1 with equal weights: Ā = ½ A + ½ I


def follow(layers: Sequence[Layer], row: Tensor, features: Features) -> TokenWeights:
    """Pull a row vector over the last tokens through all layers, last first: (b, n) -> TokenWeights.

    Multiplying a row from the left never builds the n × n product. Between the stages of a pyramid the row is
    distributed over the finer grid by area. Learned tokens that join within the network keep what reached them.
    """
    grid, prefix = features.tokens.grid, features.tokens.prefix
    for layer in reversed(layers):
        if layer.grid != grid:
            row, grid = spread(row, grid, layer.grid, prefix), layer.grid
        earlier = layer.pull(before_joining(row, prefix, layer.prefix))
        row = after_joining(earlier, row, prefix, layer.prefix)
    return TokenWeights(row, grid, prefix)


def on_grid(trail: TokenWeights) -> Tensor:
    """Return the weights of the patches: (b, row, col), on the CPU."""
    return trail.row[:, trail.prefix :].reshape(-1, *trail.grid).cpu()


def start(subject: Subject, features: Features) -> Tensor:
    """Return the start row, (b, prefix + row·col): what the head reads, the class token or all patches."""
    tokens, spec = features.tokens, subject.spec
    row = tokens.x.new_zeros(tokens.x.shape[:2])
    classes = class_tokens(spec.prefix)
    if subject.network.head.from_prefix and classes:
        row[:, classes] = 1.0 / len(classes)
    else:
        row[:, tokens.prefix :] = 1.0 / (row.shape[1] - tokens.prefix)
    return in_place(row, tokens)


def in_place(row: Tensor, tokens: Tokens) -> Tensor:
    """Scatter values of the kept tokens to their positions: (b, n) -> (b, prefix + row·col), 0 elsewhere."""
    if tokens.kept is None:
        return row
    patches = row.new_zeros(len(row), prod(tokens.grid)).scatter(1, tokens.kept, row[:, tokens.prefix :])
    return torch.cat([row[:, : tokens.prefix], patches], 1)
