"""Where a network looked, on a grid of its input: for dropping what it looks at most."""

from __future__ import annotations

import torch
from torch import Tensor

from vitrail.explainers.explanation import method_for
from vitrail.explainers.grids import pooled
from vitrail.explainers.methods import build_explainer
from vitrail.explainers.target import Subject
from vitrail.infer.predictor import Predictor
from vitrail.layers.heads import Output
from vitrail.robustness.attack_target import Scored
from vitrail.robustness.patches import Grid
from vitrail.runs.run_network import ASK


def saliency(predictor: Predictor, batch: Scored, output: Output, grid: Grid) -> list[Tensor] | None:
    """Return for each image of a batch, with its output, where the network looked: (row, col) maps.

    The map explains the prediction, which may be wrong, by the method that reports use for the network. None if only
    occlusion fits it, which takes hundreds of predictions an image.
    """
    method = method_for(predictor.network)
    if method is None:
        return None
    explainer = build_explainer(method)
    task, network, name = predictor.task, predictor.network, predictor.header.name
    maps = []
    for image, prediction in zip(batch.images, task.decode(output, batch.places, ASK), strict=True):
        found: Tensor = explainer(Subject(network, task, prediction, name), image[None])
        with torch.inference_mode():
            maps.append(pooled(found.float().cpu(), grid)[0])
    return maps
