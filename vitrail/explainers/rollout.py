"""Attention rollout: Abnar and Zuidema 2020, arXiv:2005.00928."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from vitrail.core.errors import SettingError
from vitrail.infer.predictor import Predictor
from vitrail.layers.attend import AttentionMap, Recorder
from vitrail.layers.tokens import Features, FeatureSpec


class Rollout:
    """Follow attention from the class token (from all patches, where there is none) back to the pixels."""

    name = "rollout"

    @staticmethod
    def fits(spec: FeatureSpec) -> bool:
        """Tell whether a network shows the attention that rollout follows."""
        return spec.attention in {"softmax", "linear"}

    def __call__(self, predictor: Predictor, pixels: Tensor) -> Tensor:
        """Return where the network looked: (b, channels, height, width) -> (b, row, col), each adding to 1 or less."""
        spec = predictor.network.spec
        if not self.fits(spec):
            raise SettingError(
                f"Rollout follows attention, and {predictor.header.name} shows none. "
                "Take a vision transformer of ours (vitrail models) for it."
            )
        recorder = Recorder()
        with torch.inference_mode():
            features: Features = predictor.network.encoder(pixels.to(predictor.device), record=recorder)
        tokens = features.tokens
        grids: list[tuple[int, ...]] = [(level.shape[2], level.shape[3]) for level in features.levels] or [
            tokens.grid
        ]
        # Of kept tokens the maps speak by their places among all that there were.
        count = tokens.prefix + prod(tokens.grid)
        start = _start(spec, len(tokens.x), count, tokens.prefix).to(tokens.x)
        looked = follow(recorder.maps, start, grids)
        return looked[:, tokens.prefix :].reshape(-1, *grids[0]).cpu()


def _start(spec: FeatureSpec, b: int, n: int, prefix: int) -> Tensor:
    """Return where to start from: (b, n), all on the class token, or spread over the patches."""
    start = torch.zeros(b, n)
    if spec.pool == "cls" and "cls" in spec.prefix:
        start[:, spec.prefix.index("cls")] = 1.0
    else:
        start[:, prefix:] = 1.0 / (n - prefix)
    return start


def follow(maps: Sequence[AttentionMap], start: Tensor, grids: Sequence[tuple[int, ...]] = ()) -> Tensor:
    """Pull a row vector through all layers, last first: (b, n) -> (b, n of the first layer).

    `grids` are those of a pyramid's stages, coarse last: going down a stage a token's share is spread evenly over
    the finer tokens it stands on. Each layer is Ā = ½ mean over heads of A + ½ I (eq. 1 with equal weights: the
    skip connection); multiplying a row from the left never builds the n × n product.
    """
    row = start
    coarser = list(grids)
    for one in reversed(maps):
        if one.size[0] != row.shape[1] and len(coarser) > 1:
            here = coarser.pop()
            row = _finer(row, here, coarser[-1])
        row = 0.5 * row + 0.5 * one.pull(row)
    return row


def _finer(row: Tensor, coarse: tuple[int, ...], fine: tuple[int, ...]) -> Tensor:
    """Spread (b, n of the coarse grid) evenly over the finer grid: (b, n of the fine grid), the same sum."""
    down, across = (torch.arange(f, device=row.device) * c // f for c, f in zip(coarse, fine, strict=True))
    shares = 1 / torch.outer(down.bincount()[down], across.bincount()[across])
    return (row.view(-1, *coarse)[:, down][:, :, across] * shares).flatten(1)
