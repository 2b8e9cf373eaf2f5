"""Saliency: Simonyan et al. 2013, arXiv:1312.6034, §3; any network at all."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.explainers.methods import NoSettings
from vitrail.explainers.occlusion import cell_grid
from vitrail.explainers.target import Subject
from vitrail.runs.network import Network


class Saliency:
    """The gradient of the score at the pixels: its largest size over the channels, averaged over each cell."""

    name = "saliency"
    Settings = NoSettings

    def __init__(self, settings: NoSettings = NoSettings()) -> None:
        self.settings = settings

    @staticmethod
    def fits(network: Network) -> bool:
        """Every network has gradients."""
        return True

    def __call__(self, subject: Subject, pixels: Tensor) -> Tensor:
        """Return where a small change tells most: (b, channels, height, width) -> (b, row, col), 0 or more."""
        with torch.enable_grad():
            images = pixels.to(subject.device).detach().requires_grad_()
            (at_pixels,) = torch.autograd.grad(subject.look(images).score.sum(), images)
        return F.adaptive_avg_pool2d(at_pixels.abs().amax(1), cell_grid(subject.spec, pixels[0])).cpu()
