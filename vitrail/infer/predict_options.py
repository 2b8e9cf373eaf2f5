"""Command-line options of predictions. No heavy imports: help reads this module."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """The operating point of the model, the probability threshold, label sets, tiles, and predictions as labels.

    Parameters
    ----------
    point
        operating point of a model trained for several: input size and share of kept tokens
        (list them: vitrail eval MODEL --points all)
    threshold
        probability, 0 to 1, below which nothing is predicted; in a mask, such pixels are void
    sets
        also return every label that cannot be ruled out; the number is the share of such sets without the right label
    each_class
        the share of --sets holds for each class alone, where the model had enough validation images
    tiles
        predict large images in square tiles with this side in pixels, about the size of the training images
    coco
        write predicted boxes as labels to this COCO file
    yolo
        write predicted boxes as labels into this folder: data.yaml, and a text file per image in labels/
    """

    point: str | None = None
    threshold: float | None = None
    sets: float | None = None
    each_class: bool = False
    tiles: int | None = None
    coco: str | None = None
    yolo: str | None = None
