"""Show images that a model makes on the page of its run."""

from __future__ import annotations

import torch

from vitrail import plots
from vitrail.infer.predictor import Predictor
from vitrail.tasks.image_makers import MakesImages
from vitrail.tasks.result import Picture, Result

NOTE = (
    "A row for each class, made from noise with the seed 0. No image of the data is among them; whether some are "
    "copies of training images, their nearest neighbours tell."
)


def with_made_images(result: Result, predictor: Predictor) -> Result:
    """Add a sheet of images that the model makes, in front of the other sections; other tasks are not changed."""
    task, steps = predictor.task, predictor.preprocess
    if not isinstance(task, MakesImages):
        return result
    with torch.inference_mode():
        sheet = task.sheet(predictor.network, (steps.channels, *steps.size))
    picture = Picture("Made images", plots.data_uri(sheet), NOTE)
    return result._replace(sections=(picture, *result.sections))
