"""How an image is fitted to the input: as published weights were evaluated, unless somebody says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitrail.data.preprocess import Preprocess, usual_fraction


def view_layer(
    published: Preprocess | None, whole: bool, stated: Mapping[str, Any], wanted: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Return fit, crop fraction and interpolation as a layer of a recipe, and a line where the weights decide.

    `published` is how weights want images, where they say so; `stated` the recipe's `model`; `wanted` the user's fit.
    `whole` says that no margin may be cut off: of tiny images, and where truths lie in the image.
    """
    view, plain = (_view(one, whole, stated, wanted) for one in (published, None))
    told = [] if view == plain else [_as_evaluated(view)]
    return {"model": view}, told


def _as_evaluated(view: Mapping[str, Any]) -> str:
    return (
        f"fit {view['fit']}, {view['crop_fraction']:.4g} of each side shown, {view['interpolation']}: as the weights "
        "were evaluated"
    )


def _view(
    published: Preprocess | None, whole: bool, stated: Mapping[str, Any], wanted: str | None
) -> dict[str, Any]:
    """Return fit, crop fraction and interpolation: the weights' own, where neither recipe nor `wanted` says a fit.

    Whoever says another fit means its usual crop, and a recipe that says one means bicubic too, as it did before
    weights were asked. A margin of a tiny image is content, and stays.
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
