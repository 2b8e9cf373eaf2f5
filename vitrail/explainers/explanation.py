"""One call from a picture to an explanation of what the network answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitrail import plots
from vitrail.core.catalog import EXPLAINERS, load
from vitrail.explainers.place import Map, onto_original
from vitrail.infer.predictor import Predictor
from vitrail.layers.tokens import FeatureSpec


@dataclass(frozen=True)
class Explanation:
    """What one picture was taken for, and where the network looked.

    `grid` is (row, col) in the network's own cells; `heat` is (height, width) in the original's pixels, NaN
    where the network saw nothing.
    """

    method: str
    prediction: Any
    grid: Map = field(repr=False)
    heat: Map = field(repr=False)
    image: NDArray[np.uint8] = field(repr=False)

    def original(self) -> Image.Image:
        """Return the picture as decoded."""
        return Image.fromarray(self.image.squeeze(-1) if self.image.shape[-1] == 1 else self.image)

    def overlay(self) -> Image.Image:
        """Return the heat map over the picture, with its scale."""
        return plots.heat(self.original(), self.heat)

    def figure(self) -> Image.Image:
        """Return the picture and the heat map side by side."""
        return plots.beside(plots.shown(self.original()), self.overlay())

    def save(self, path: str | Path) -> Path:
        """Write the figure as a picture file."""
        self.figure().save(path)
        return Path(path)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: method, prediction, grid."""
        grid = [[round(float(cell), 6) for cell in row] for row in self.grid]
        return {"method": self.method, **self.prediction.to_dict(), "grid": grid}


def method_for(spec: FeatureSpec) -> str | None:
    """Return the first explainer of the catalog that fits a network, or None; one that says nothing of it fits none."""
    for name in EXPLAINERS:
        fits = getattr(load("explainer", name), "fits", None)
        if fits is not None and fits(spec):
            return name
    return None


def explain(model: Predictor | str | Path, image: Any, method: str = "rollout") -> Explanation:
    """Return why a model answers what it answers: `image` is a path, Pillow image or array."""
    predictor = model if isinstance(model, Predictor) else Predictor(model)
    explainer = load("explainer", method)()
    ready = predictor.ready(image)
    grid = explainer(predictor, ready.pixels[None])[0].numpy().astype(np.float32)
    prediction = predictor.task.decode(predictor.outputs(ready.pixels[None]), [ready.geometry])[0]
    heat = onto_original(grid, ready.geometry, predictor.network.spec.rim)
    return Explanation(method, prediction, grid, heat, ready.image)
