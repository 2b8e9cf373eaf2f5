"""Grad-CAM: Selvaraju et al. 2017, arXiv:1610.02391."""

from __future__ import annotations

import torch
from torch import Tensor

from vitrail.core.errors import SettingError
from vitrail.explainers.methods import NoSettings
from vitrail.explainers.target import Seen, Subject
from vitrail.layers.tokens import Tokens
from vitrail.runs.network import Network


class NoMapError(SettingError):
    """The explained score does not depend on the map that Grad-CAM looks at; other methods may find something."""


class GradCam:
    """Weight the channels of the last map by their mean gradient (eq. 1), and keep the positive part (eq. 2).

    It reads the network's features, so no hook is needed; any network that pools its map works.
    """

    name = "gradcam"
    Settings = NoSettings

    def __init__(self, settings: NoSettings = NoSettings()) -> None:
        self.settings = settings

    @staticmethod
    def fits(network: Network) -> bool:
        """Return whether the head of the network reads its last map, and not only a class token."""
        return not (network.head.from_prefix and network.spec.prefix)

    def __call__(self, subject: Subject, pixels: Tensor) -> Tensor:
        """Return where the score comes from: (b, channels, height, width) -> (b, row, col), 0 or more.

        Of clips, a channel has one weight for all frames: (b, t, channels, height, width) -> (b, t, row, col).
        """
        with torch.enable_grad():
            # Parameters are frozen: without a gradient at the input there would be no graph.
            target = subject.look(pixels.to(subject.device).detach().requires_grad_())
            at_map, level = _gradient(target)
        if at_map is None or not bool(at_map.any()):
            raise NoMapError(
                f"The head of {subject.name} does not read the patches of the last map, which Grad-CAM needs. "
                "Use --method relevance or occlusion."
            )
        weights = at_map.flatten(2).mean(2)[(...,) + (None,) * (at_map.ndim - 2)]
        return (weights * level).sum(1).clamp(min=0).detach().cpu()


def _gradient(target: Seen) -> tuple[Tensor | None, Tensor]:
    """Return the gradient at the map that the head reads, and the map: (b, d, *grid) each."""
    tokens, levels, _ = target.features
    candidates = [tokens.x, *levels[-1:]]
    gradients: list[Tensor | None] = list(
        torch.autograd.grad(target.score.sum(), candidates, allow_unused=True)
    )
    at_tokens, at_level = gradients[0], gradients[-1]
    if at_tokens is not None:
        return tokens.with_x(at_tokens).map(), tokens.map()
    if at_level is None or not levels:
        return None, tokens.map()
    return _by_clip(at_level, tokens), _by_clip(levels[-1], tokens)


def _by_clip(level: Tensor, tokens: Tokens) -> Tensor:
    """Return the maps of the frames of clips as (b, d, t, row, col); those of images are (b, d, row, col) already."""
    clips = len(tokens.x)
    return level if len(level) == clips else level.view(clips, -1, *level.shape[1:]).transpose(1, 2)
