"""Explain the prediction of a model for one image or clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitrail import plots
from vitrail.core.errors import SettingError
from vitrail.explainers.clip_maps import frame_shares, on_frames, small_frames
from vitrail.explainers.faithfulness import SHUFFLES, Baseline, Faithfulness, tested
from vitrail.explainers.fast_scores import FastScores, Precision, ScoringNetwork
from vitrail.explainers.methods import build_explainer, compatible_methods
from vitrail.explainers.occlusion import Occlusion
from vitrail.explainers.target import Subject, shuffled
from vitrail.explainers.to_original import Map, onto_original
from vitrail.infer.predictor import Predictor, Ready
from vitrail.runs.model_source import model_path
from vitrail.runs.network import Network
from vitrail.runs.run import Run
from vitrail.runs.run_network import ASK
from vitrail.tasks.base import Asked

LETTERS = 14
"""Height of the numbers below a strip of frames, in pixels."""

Explainer = Callable[[Subject, Tensor], Tensor]


@dataclass(frozen=True)
class Explanation:
    """The prediction for one image, and where the network looked.

    `grid` is (row, col) in the method's own cells; `heat` is (height, width) in pixels of the original, 0 or more, NaN
    outside the network's input. `of` names what is explained, `asked` the part of the image in question; `faithful` is
    the result of the tests, if they were run.
    Of a clip, `grid` is (moment, row, col), `image` its frames (t, height, width, channels), of at most
    `clip_maps.SIDE` pixels a side, `heat` is (t, height, width) in their pixels, and `times` are their seconds.
    """

    method: str
    prediction: Any
    grid: Map = field(repr=False)
    heat: Map = field(repr=False)
    image: NDArray[np.uint8] = field(repr=False)
    of: str = ""
    faithful: Faithfulness | None = None
    asked: Asked | None = None
    times: tuple[float, ...] = ()

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each frame of a clip in the map, with sum 1; () of an image."""
        return frame_shares(self.grid, len(self.times)) if self.times else ()

    def frames(self) -> list[Image.Image]:
        """Return the frames of a clip; of an image, this image."""
        return [plots.of_array(frame) for frame in (self.image if self.times else self.image[None])]

    def heated_frames(self) -> list[Image.Image]:
        """Return the heat map over each frame of a clip, all on one scale."""
        top = self.top
        pairs = zip(self.frames(), self.heat, strict=True)
        return [plots.heated(frame, heat, top) for frame, heat in pairs]

    @property
    def top(self) -> float:
        """The largest value of the heat map."""
        return float(np.nanmax(self.heat)) if np.isfinite(self.heat).any() else 0.0

    def original(self) -> Image.Image:
        """Return the image as decoded; of a clip its middle frame."""
        return plots.of_array(self.image[len(self.image) // 2] if self.times else self.image)

    def overlay(self) -> Image.Image:
        """Return the heat map over the image, with its scale; of a clip a strip of frames with the share of each."""
        if self.times:
            return plots.with_scale(
                plots.strip(self.heated_frames(), self.times, self.shares), self.top, LETTERS
            )
        return self.marked(plots.heat(self.original(), self.heat))

    def marked(self, drawn: Image.Image) -> Image.Image:
        """Return a drawing of the image, of any size, with a frame around the explained part."""
        return drawn if self.asked is None else plots.framed(drawn, self.asked.box, self.image.shape[1])

    def figure(self, longest: int | None = None) -> Image.Image:
        """Return image and heat map side by side; the image is first reduced to at most `longest` pixels a side.

        Of a clip, two strips, one above the other, reduced together.
        """
        if self.times:
            strips = plots.below(plots.strip(self.frames(), self.times), self.overlay())
            strips.thumbnail((longest or strips.width, longest or strips.height))
            return strips
        picture = self.original()
        if longest is not None:
            picture.thumbnail((longest, longest))
        drawn = (plots.shown(picture), plots.heat(picture, self.heat))
        return plots.beside(*map(self.marked, drawn))

    def save(self, path: str | Path) -> Path:
        """Write the figure as an image file."""
        plots.write_image(Path(path), self.figure())
        return Path(path)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: method, what is explained, prediction, grid, tests."""
        grid = np.round(self.grid.astype(np.float64), 6).tolist()
        tests = {"faithful": self.faithful.to_dict()} if self.faithful else {}
        shares = [round(share, 6) for share in self.shares]
        frames = {"times": list(self.times), "shares": shares} if self.times else {}
        named = {"method": self.method, "of": self.of, **self.prediction.to_dict()}
        return {**named, "grid": grid, **frames, **tests}


class ImageExplainer:
    """One image or clip and one model: the prediction, and any number of explanations of it.

    `image` is a path, bytes, Pillow image or array; DataError if it cannot be read. `networks` are made once for many
    images.
    """

    def __init__(self, predictor: Predictor, image: Any, networks: ScoringNetworks | None = None) -> None:
        predictor.answering()
        if predictor.preprocess.zoom is not None:
            raise SettingError(
                "This model uses sliding windows, so there is no map of the whole image. Train with --set zoom=0 "
                "to explain whole images."
            )
        self.predictor = predictor
        self._networks = networks or ScoringNetworks(predictor)
        self._fast = FastScores(self._networks.own)
        self._baselines: dict[str, Baseline] = {}
        self.ready: Ready = predictor.ready(image)
        self.output = predictor.outputs([self.ready])
        self.prediction = predictor.task.decode(self.output, [self.ready.geometry], ASK)[0]

    @property
    def choices(self) -> list[str]:
        """What can be explained in the prediction, most likely first."""
        return list(self.predictor.task.choices(self.prediction))

    @property
    def _first(self) -> str:
        """The first of the choices; empty if the prediction names none, as without texts to choose from."""
        return next(iter(self.choices), "")

    @property
    def point(self) -> str:
        """The operating point at which the network is explained; empty for the whole network."""
        point = self.predictor.point
        return "" if point == self.predictor.points[-1] else str(point)

    def subject(self, of: str | None = None) -> Subject:
        """Return what to explain: the prediction itself, or another choice (UnknownNameError names the nearest)."""
        task = self.predictor.task
        chosen = self.prediction if of is None else task.focus(self.prediction, of)
        return Subject(self._networks.own.network, task, chosen, self.predictor.header.name, self._fast)

    def explain(
        self, method: str, of: str | None = None, settings: Mapping[str, Any] | None = None
    ) -> Explanation:
        """Return one explanation.

        Raises:
            SettingError: the method is unknown, does not fit the network, or has no such setting.
        """
        explainer = self._explainer(method, settings)
        subject = self.subject(of)
        grid = explainer(subject, self.ready.pixels[None])[0].float().numpy()
        # Occlusion cells fill the whole input; overlapping tokens leave a rim around their centres.
        rim = 0.0 if method == "occlusion" else subject.spec.overlap_margin
        geometry, times = self.ready.geometry, self.ready.geometry.times
        if times:
            heat, image = on_frames(grid, geometry, rim), small_frames(self.ready.image, geometry)
        else:
            heat = onto_original(np.maximum(grid, 0), geometry, rim)
            image = self.predictor.preprocess.visible(self.ready.image)
        asked = self.predictor.task.asked(subject.prediction, self.output)
        named = asked.choice if asked else of or self._first
        return Explanation(method, self.prediction, grid, heat, image, named, asked=asked, times=times)

    def test(self, found: Explanation, settings: Mapping[str, Any] | None = None) -> Explanation:
        """Test an explanation and return it with the result."""
        explainer = self._explainer(found.method, settings)
        baseline = self._baseline(found.of)
        if isinstance(explainer, Occlusion):
            explainer = explainer.coarse(baseline.cells)
        others = [baseline.subject.in_network(fast.scoring.network, fast) for fast in self._fast_twins]
        return replace(found, faithful=tested(explainer, found.grid, baseline, others))

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """How the images with masked cells were scored so far."""
        twins = self.__dict__.get("_fast_twins", [])  # empty if there was no test: do not make them
        return tuple(one for fast in (self._fast, *twins) for one in fast.precisions)

    @cached_property
    def _fast_twins(self) -> list[FastScores]:
        return [FastScores(twin) for twin in self._networks.twins]

    def _explainer(self, method: str, settings: Mapping[str, Any] | None) -> Explainer:
        explainer: Any = build_explainer(method, settings)
        network = self.predictor.network
        if not explainer.fits(network):
            raise SettingError(
                f"{method} does not fit {self.predictor.header.name}, {_misfit(method, network.spec.attention)}. "
                f"What fits: {', '.join(compatible_methods(network))}."
            )
        checked: Explainer = explainer
        return checked

    def _baseline(self, of: str) -> Baseline:
        if of not in self._baselines:
            subject = self.subject(None if of == self._first else of)
            self._baselines[of] = Baseline(subject, self.ready.pixels)
        return self._baselines[of]


class ScoringNetworks:
    """The network of a predictor, and shuffled copies of it for the test, each made when it is first needed."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.own = ScoringNetwork(predictor.at(predictor.point), predictor.task)

    @cached_property
    def twins(self) -> list[ScoringNetwork]:
        """Copies of the network with shuffled weights."""
        network, task = self.own.network, self.predictor.task
        return [
            ScoringNetwork(shuffled(network, seed), task, f"shuffled weights {seed + 1}")
            for seed in range(SHUFFLES)
        ]


def _misfit(method: str, attention: str) -> str:
    if method == "gradcam":
        return "whose head reads a class token and no map"
    return "whose attention cannot be seen" if attention == "opaque" else "which has no attention"


def method_for(network: Network) -> str | None:
    """Return the explainer that reports use for a network, or None if only occlusion fits.

    Occlusion needs several hundred forward passes per image, too slow for a report.
    """
    return next((name for name in compatible_methods(network) if name != "occlusion"), None)


def explain(
    model: Predictor | str | Path | Run, image: Any, method: str = "rollout", *, of: str | None = None
) -> Explanation:
    """Explain the prediction of a model for an image (a path, Pillow image or array), or for a clip.

    `of` names another class than the predicted one. Methods: rollout, relevance, gradcam, occlusion, attention.
    """
    if not isinstance(model, Predictor):
        model = Predictor(model if isinstance(model, Run) else model_path(model))
    return ImageExplainer(model, image).explain(method, of)
