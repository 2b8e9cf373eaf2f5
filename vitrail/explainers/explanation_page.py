"""The page of one explanation: the prediction, where the network looked, and how far to trust this."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vitrail import plots
from vitrail.core.errors import InsufficientMemoryError
from vitrail.explainers.attention_maps import looks_of
from vitrail.explainers.attention_viewer import hover_data
from vitrail.explainers.explanation import Explanation, ImageExplainer
from vitrail.explainers.faithfulness import NOTHING
from vitrail.explainers.fast_scores import precision_line
from vitrail.explainers.gradcam import NoMapError
from vitrail.explainers.methods import compatible_methods
from vitrail.pages import render

WIDTH = 460
"""Largest width and height of an image in the page, in pixels."""

OTHERS = 2
"""Number of other classes that are explained next to the prediction."""


WORDS = (
    ("rollout", "Rollout follows attention back through all layers; it does not depend on the class."),
    ("relevance", "Relevance weights attention by the gradient of the explained score."),
    ("gradcam", "Grad-CAM weights the last feature map by the gradient of the explained score."),
    ("occlusion", "Occlusion covers the image piece by piece and measures how far the score falls."),
)


@dataclass(frozen=True)
class Gathered:
    """What a page shows: every method that fits, evidence for other choices, and why methods are left out."""

    found: list[Explanation]
    beside: list[Explanation]
    refused: list[str]


@dataclass(frozen=True)
class Page:
    """A page, and the explanations on it."""

    html: str
    explanations: tuple[Explanation, ...]


def build_page(look: ImageExplainer, name: str, *, of: str | None = None, check: bool = True) -> Page:
    """Return the page of one image: every method that fits, tested if `check` is True.

    `of` names another choice to explain. The page is self-contained and needs no internet.
    """
    spec = look.predictor.network.spec
    gathered = gather(look, of, check)
    found, beside = gathered.found, gathered.beside
    made = {one.method for one in found}
    asked = found[0].asked
    picture = _small(found[0])
    values = {
        "name": name,
        "model": look.predictor.header.name,
        "answer": asked.answer if asked else str(look.prediction),
        "point": look.point,
        "heading": heading(found[0]),
        "picture": plots.photo_uri(found[0].marked(plots.shown(picture))),
        "found": [_shown(one, picture) for one in found],
        "beside": [_shown(one, picture) for one in beside],
        "refused": gathered.refused,
        "cropped": bool(np.isnan(found[0].heat).any()),
        "words": [words for method, words in WORDS if method in made],
        "has_class": "cls" in spec.prefix,
        "verdict": recommend(found) if check else "",
        "precision": precision_line(look.precisions),
        **_attention(look, "attention" in compatible_methods(look.predictor.network)),
    }
    return Page(render("explain.html", values), (*found, *beside))


def gather(look: ImageExplainer, of: str | None, check: bool) -> Gathered:
    """Return what a page shows, tested if `check` is True; `of` names another choice to explain."""
    found, refused = every(look, of)
    if check:
        found = [look.test(one) for one in found]
    made = {one.method: one.grid.size for one in found}
    # A map with one cell (small image, deep pyramid) cannot distinguish classes.
    specific = next((name for name in ("relevance", "gradcam") if made.get(name, 0) > 1), "occlusion")
    asked = found[0].asked
    choices = asked.others if asked else look.choices
    others = [choice for choice in choices if choice != found[0].of][:OTHERS]
    return Gathered(found, [look.explain(specific, choice) for choice in others], refused)


def heading(one: Explanation, words: str = "Where it looked") -> str:
    """Return the heading above the maps of an explanation."""
    if one.asked is not None:
        return one.asked.heading
    return f"{words} for “{one.of}”" if one.of else words


def every(look: ImageExplainer, of: str | None = None) -> tuple[list[Explanation], list[str]]:
    """Return the explanations of all methods that fit, and why others are left out: memory, or nothing found."""
    found, refused = [], []
    for method in compatible_methods(look.predictor.network):
        try:
            if method != "attention":
                found.append(look.explain(method, of))
        except (InsufficientMemoryError, NoMapError) as error:
            refused.append(str(error))
    return found, refused


def recommend(found: Sequence[Explanation]) -> str:
    """Say which of several tested explanations of one prediction to trust."""
    tested = [one for one in found if one.faithful is not None]
    passed = [one for one in tested if one.faithful is not None and one.faithful.holds]
    if tested and all(one.faithful is not None and one.faithful.nothing for one in tested):
        return NOTHING
    if not passed:
        return "No method is significantly better than random order here; do not trust these heat maps."
    best = max(passed, key=gain)
    rest = [one.method for one in tested if one not in passed]
    more = f" Doubtful here: {', '.join(rest)}." if rest else ""
    return f"Trust {best.method}: of the methods that pass, it finds best what the score depends on.{more}"


def gain(one: Explanation) -> float:
    """Return by how much the order of a tested explanation is better than random ones."""
    assert one.faithful is not None, "only tested explanations are compared"
    return one.faithful.deletion.mean + one.faithful.insertion.mean


def _shown(one: Explanation, picture: Image.Image) -> dict[str, Any]:
    image = plots.photo_uri(one.marked(plots.heat(picture, one.heat)))
    note = " One cell covers the whole input: it shows no location." if one.grid.size == 1 else ""
    return {"method": one.method, "of": one.of, "image": image, "faithful": one.faithful, "note": note}


def _small(one: Explanation) -> Image.Image:
    """Return the image at page size; maps are drawn on it afterwards, so that their scale is readable."""
    picture = one.original()
    picture.thumbnail((WIDTH, WIDTH))
    return picture


def _attention(look: ImageExplainer, there: bool) -> dict[str, Any]:
    """Return the grid of heat maps and the data of the sliders; empty if the network shows no attention."""
    if not there:
        return {"heads": "", "hover": ""}
    grids = [maps[0].float().numpy() for maps in looks_of(look.subject(), look.ready.pixels[None])]
    return {"heads": plots.data_uri(plots.heat_grid(grids)), "hover": json.dumps(viewer_data(look))}


def viewer_data(look: ImageExplainer) -> dict[str, Any]:
    """Return the attention of an image for a page with sliders, as plain data (`hover_data`).

    `box` is the part of the image that the network sees (top, left, bottom, right), as shares of its sides.
    """
    geometry = look.ready.geometry
    top, left, bottom, right = geometry.box
    height, width = geometry.original
    box = [top / height, left / width, bottom / height, right / width]
    return {**hover_data(look.subject(), look.ready.pixels[None]), "box": box, "colours": _colours()}


def _colours() -> list[list[int]]:
    """Return the colour map of heat for 0 … 255."""
    ramp = plots.heat_colours(np.linspace(0, 1, 256)[None])[0]
    return [[int(part) for part in colour] for colour in ramp]
