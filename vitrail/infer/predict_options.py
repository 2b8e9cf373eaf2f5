"""Command-line options of predictions. No heavy imports: help reads this module."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vitrail.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """The operating point or a latency, the probability threshold, label sets, tiles, and predictions as labels.

    Parameters
    ----------
    point
        operating point: input size, and share of kept tokens (160px/0.7), merged pairs of patches (160px/merge8) or
        larger patches (224px/patch16); it was trained or measured (vitrail eval RUN --points all)
    latency
        choose the most accurate measured point that answers an image within this time on this machine, such as 15ms;
        images are then answered one at a time
    threshold
        probability, 0 to 1, below which nothing is predicted; in a mask, such pixels are void
    sets
        also return every label that cannot be ruled out; the number is the share of such sets without the right label
    each_class
        the share of --sets holds for each class alone, where the model had enough validation images; with a map, a
        band of probabilities for each class
    tiles
        predict large images in square tiles with this side in pixels, about the size of the training images
    reference
        with a map: polygons, points or a raster of known classes, drawn at random within each mapped class
        (points.gpkg, or points.gpkg:class); areas then have 95 % intervals
    zero_shot
        classes that were never trained, by name: "cat,dog,something else". The model, published CLIP if none is named,
        must have learnt from captions. From 50 images on, those that fit no class are told
    template
        with --zero-shot: the text of a class, such as "a satellite photo of {}"; may be given several times
    track
        follow the boxes of a detector through videos: an object keeps its number, also if it is hidden for less than a
        second; --csv has a row for each object and frame, --out a video with boxes
    coco
        write predicted boxes, and masks if the model has them, as labels to this COCO file
    yolo
        write predicted boxes, or the outlines of masks, as labels into this folder: data.yaml, and a text file per
        image in labels/
    class_
        of a model that makes images: make images of this class, in the folder --out (made by default); images that are
        named are changed into the class, and keep more or less of themselves (--strength)
    n
        how many images to make, 16 by default; of each image that is named, 1 by default
    seed
        the same number makes the same images: image 3 is the same, however many are made (0 by default)
    steps
        in how many steps an image is made, 2 to 1000; more steps, finer images
    sampler
        ddpm, or ddim, which is better with few steps
    guidance
        how strongly the class is followed: 1 as it was learnt, 4 for typical and similar images
    strength
        how much of an image that is named is replaced, above 0 to 1 (0.5 by default)
    """

    point: str | None = None
    latency: str | None = None
    threshold: float | None = None
    sets: float | None = None
    each_class: bool = False
    tiles: int | None = None
    reference: str | None = None
    zero_shot: str | None = None
    template: tuple[str, ...] = ()
    track: bool = False
    coco: str | None = None
    yolo: str | None = None
    class_: str | None = None
    n: int | None = None
    seed: int | None = None
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    strength: float | None = None


OF_MAKING = ("class_", "n", "seed", "steps", "sampler", "guidance", "strength")
"""The options of images that are made."""


def read_latency(text: str) -> float:
    """Parse a time such as 15ms, 0.2s or 15 (milliseconds), into milliseconds."""
    match = re.fullmatch(r"(\d*\.?\d+)\s*(ms|s)?", text.strip())
    if not match or float(match[1]) <= 0:
        raise SettingError(f"The latency {text!r} cannot be read. Write milliseconds or seconds: 15ms, 0.2s")
    return float(match[1]) * (1000 if match[2] == "s" else 1)
