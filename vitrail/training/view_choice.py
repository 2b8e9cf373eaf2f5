"""Choose how images are fitted to the input: as the published weights were evaluated, unless the user overrides it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitrail.data.preprocess import Preprocess, usual_fraction


def view_layer(
    published: Preprocess | None, whole: bool, stated: Mapping[str, Any], wanted: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Return fit, crop fraction and interpolation as a layer of a recipe, and a line if the weights decide.

    `published` is the preprocessing that the weights state, if any; `stated` the recipe's `model`; `wanted` the user's
    fit. `whole` forbids cropping: for tiny images, and for labels that are tied to places in the image.
    """
    view, default = (_view(preprocess, whole, stated, wanted) for preprocess in (published, None))
    lines = [] if view == default else [_as_evaluated(view)]
    return {"model": view}, lines


def _as_evaluated(view: Mapping[str, Any]) -> str:
    return (
        f"fit {view['fit']}, {view['crop_fraction']:.4g} of each side shown, {view['interpolation']}: as the weights "
        "were evaluated"
    )


def _view(
    published: Preprocess | None, whole: bool, stated: Mapping[str, Any], wanted: str | None
) -> dict[str, Any]:
    """Return fit, crop fraction and interpolation: those of the weights, if neither the recipe nor `wanted` sets a fit.

    Another fit comes with its usual crop fraction. A recipe that sets a fit also gets bicubic interpolation, as in
    versions that did not use the preprocessing of the weights. Tiny images are not cropped: their margin is content.
    """
    view: dict[str, Any] = {
        "fit": "squash" if whole else "crop",
        "crop_fraction": None,
        "interpolation": "bicubic",
    }
    if published is not None and stated.get("fit") is None:
        view["interpolation"] = published.interpolation
        if not whole:
            view |= {"fit": published.fit, "crop_fraction": published.crop_fraction}
    view |= {key: stated[key] for key in view if stated.get(key) is not None}
    if wanted not in (None, view["fit"]):
        view |= {"fit": wanted, "crop_fraction": None}
    if view["crop_fraction"] is None:
        view["crop_fraction"] = usual_fraction(view["fit"])
    return view
