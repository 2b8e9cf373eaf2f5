"""Which patches a prediction rests on most: gradient × input, summed over each patch.

This is the first-order estimate of how far the score falls when a patch becomes the mean colour, which is what dropping
does to it (Ancona et al. 2018, arXiv:1711.06104, §3). It is the same for every network, with attention or without.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitrail.explainers.grids import pooled
from vitrail.explainers.target import Subject
from vitrail.infer.predictor import Predictor
from vitrail.layers.heads import Output
from vitrail.robustness.attack_target import Scored
from vitrail.robustness.patches import Grid
from vitrail.runs.run_network import ASK


def saliency(predictor: Predictor, batch: Scored, output: Output, grid: Grid) -> list[Tensor]:
    """Return for each image of a batch, with its output, how much each patch speaks for the prediction: (row, col)."""
    task, network, name = predictor.task, predictor.network, predictor.header.name
    predictions = task.decode(output, batch.places, ASK)
    subjects = [Subject(network, task, prediction, name) for prediction in predictions]
    return [
        pooled(_evidence(subject, image[None]), grid)[0]
        for subject, image in zip(subjects, batch.images, strict=True)
    ]


def _evidence(subject: Subject, image: Tensor) -> Tensor:
    """Return gradient × input of the score, the sum of channels: (b, channels, height, width) -> (b, height, width)."""
    with torch.enable_grad():
        inputs = image.to(subject.device).clone().requires_grad_()
        (gradient,) = torch.autograd.grad(subject.look(inputs).score.sum(), inputs)
    return (gradient * inputs).detach().sum(1).float().cpu()
