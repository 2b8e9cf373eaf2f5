"""Semantic segmentation: a class for every pixel."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail import plots
from vitrail.core.errors import DataError
from vitrail.data.batch import Batch, Geometry, images_only
from vitrail.data.preprocess import Preprocess
from vitrail.data.truth import Truth
from vitrail.data.view import points_in_original, scaled, strips_in_original
from vitrail.layers.heads import Head, Output
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.base import Ask, Asked, Following, InOriginal, Losses, PictureOutput, Task, within
from vitrail.tasks.freezing import frozen_encoder
from vitrail.tasks.result import Exports
from vitrail.tasks.segment import loss
from vitrail.tasks.segment.areas import Areas, Mask, colours_of
from vitrail.tasks.segment.evaluation import SegmentEvaluation
from vitrail.tasks.segment.head import LinearMapHead, PixelHead
from vitrail.tasks.segment.probe import SegmentProbe
from vitrail.tasks.segment.settings import SegmentSettings
from vitrail.tasks.segment.targets import SegmentTargets, frequency_weights
from vitrail.tasks.segment.windows import in_windows

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from vitrail.data.manifest import Row

STRIP = 1 << 24
"""Values of logit maps in memory at a time, at the size of the original: 64 MB."""

LATE = 0.8
"""Share of a training after which the Lovász loss is added."""

SAME = 0.995
"""Share of equal pixels from which two predictions agree."""

TRIES = 4
"""Number of views from which one is chosen for a rare class."""

LARGE = 4.0
"""Images at least this many times longer and wider than the input are predicted in windows."""

SEEN = 2.0
"""Size of such images after scaling, as a multiple of the input."""

GLANCE = 320
"""Pixels of the long side of an image that is drawn during training."""

LETTERS = 15
"""Font size in pixels below such an image."""

WRONG = (213, 30, 30)
"""The colour of wrong pixels."""

SIDE = 32
"""Rows and columns of the class shares that a proof compares."""


class Segment(Task[Mask, Areas], SegmentTargets):
    """Cross entropy of pixels, with higher weights for rare classes, and Dice of the classes in an image.

    Void pixels do not count. With `lovasz`, the Lovász loss is added in the last fifth of a training.
    """

    name = "segment"
    kind = "mask"
    Settings = SegmentSettings
    outputs: Mapping[str, tuple[str, ...]] = {"map": ("class", "row", "col")}
    columns = ("class", "pixels", "share")
    exports = Exports("image-segmentation", ("mean_iou",))
    picture_outputs = (
        PictureOutput("classes", "int64", "classes of the pixels of the original image: (height, width)"),
    )
    measures = True
    takes_threshold = True
    begins_from = ("segment", "panoptic")
    head_settings = ("head", "width", "stem")
    agreement = f"masks are the same in at least {100 * SAME:g} % of their pixels"

    def __init__(self, truth: Truth | Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(truth, settings)
        # A linear head is fitted on features before the first step; other heads start from random weights.
        self.head_rate = self.settings.head_rate if self.settings.head == "pixels" else 1.0
        if len(self.labels) < 2:
            raise DataError(
                f"Segmentation needs at least two classes, got {list(self.labels)}. Add another class."
            )
        self.colours = colours_of(self.labels, self.truth.colours)

    # Network

    def head(self, spec: FeatureSpec) -> Head:
        """Return the head of the setting `head`."""
        own = self.settings
        if own.head == "linear":
            return LinearMapHead(spec, len(self.labels), own.dropout)
        stem = spec.channels if own.stem else 0
        return PixelHead(spec, len(self.labels), own.width, stem=stem, dropout=own.dropout)

    def steps(self, preprocess: Preprocess) -> Preprocess:
        """Return the preprocessing with the zoom of the settings."""
        return replace(preprocess, zoom=self.settings.zoom) if self.settings.zoom else preprocess

    @classmethod
    def for_large(
        cls,
        stated: Mapping[str, Any],
        size: tuple[int, int],
        shapes: Sequence[tuple[int, int]],
        strides: Sequence[float],
    ) -> tuple[dict[str, Any], list[str]]:
        """Return a zoom, and a line that explains it, if images are much larger than an input of `size`.

        `shapes` are (height, width) of some images. Return nothing if a zoom is set, or if windows would not start at
        cells of the map.
        """
        shrunk = statistics.median((height * width / (size[0] * size[1])) ** 0.5 for height, width in shapes)
        cell: float = 4 if strides[0] in (4, 8, 16) else strides[0]
        if stated.get("head") == "linear":
            cell = strides[-1]
        parts = [next(side // n for n in (4, 2, 1) if side % n == 0) for side in size]
        if "zoom" in stated or shrunk < LARGE or any(part % cell for part in parts):
            return {}, []
        zoom = float(f"{SEEN / shrunk:.2g}")
        line = (
            f"images {shrunk:.1f} times as long as the input: trained on crops and predicted in overlapping windows at "
            f"{zoom:g} of their scale; such a model cannot be explained or exported; to use whole images instead: "
            "--set zoom=0"
        )
        return {"zoom": zoom}, [line]

    def collate(self, targets: Sequence[Mask]) -> Tensor:
        """Return masks of equal size as one tensor: (b, height, width)."""
        return torch.from_numpy(np.stack(targets).astype(np.int64))

    def learn(self, rows: Sequence[Row], root: Path) -> Mapping[str, Any]:
        """Return class weights from the areas in these rows, if none are set."""
        if self.settings.class_weights is not None or not self.settings.weigh or not rows:
            return {}
        return {"class_weights": tuple(round(float(one), 4) for one in self.class_weights(rows, root))}

    def class_weights(self, rows: Sequence[Row], root: Path) -> NDArray[np.float32]:
        """Return the weight of each class from its area: (k,)."""
        return frequency_weights(self.areas(rows, root))

    def view(self, target: Mask, draw: Callable[[int], Any], key: int) -> Any:
        """Return a random view; for a share `rare` of the images, the best of several views for a rare class."""
        first, rng = draw(0), np.random.default_rng(key)
        present = np.flatnonzero(np.bincount(target.ravel(), minlength=256)[: len(self.labels)])
        if rng.random() >= self.settings.rare or len(present) < 2:
            return first
        weights = np.array(self.settings.class_weights or np.ones(len(self.labels)))[present] ** 2
        rare = rng.choice(present, p=weights / weights.sum())
        views = [first, *(draw(turn) for turn in range(1, TRIES))]
        return max(views, key=lambda view: int((self.transform(target, view) == rare).sum()))

    def training_loss(
        self, network: nn.Module, batch: Batch[Any], rng: np.random.Generator, progress: float
    ) -> Losses:
        """Return the loss; the encoder is frozen in the first `frozen` share of a training.

        In distributed training the encoder is never frozen, because its gradients are expected in every step.
        """
        with frozen_encoder(network, progress < self.settings.frozen):
            output = self.answer(network, batch, Ask())
        losses = self.loss(output, batch.targets)
        if not self.settings.lovasz or progress < LATE:
            return losses
        logits = loss.at_pixels(output["map"], batch.targets.shape[-2:])
        late = loss.lovasz(logits, batch.targets, self.VOID) / max(1.0, self._shown(batch.targets))
        return Losses({**losses.parts, "lovasz": self.settings.lovasz * late})

    def loss(self, output: Output, targets: Tensor) -> Losses:
        """Return cross entropy, a mean over pixels, and Dice, a mean over the classes in the images."""
        masks = targets.to(output["map"].device)
        logits = loss.at_pixels(output["map"], (masks.shape[-2], masks.shape[-1]))
        weights = self._class_weights(logits.device)
        count = loss.pixel_weight(masks, self.VOID, weights).clamp(min=1e-12).to(logits.dtype)
        pixels = loss.cross_entropy(logits, masks, self.VOID, weights, self.settings.smoothing) / count
        if not self.settings.dice:
            return Losses({"pixels": pixels})
        shown = max(1.0, self._shown(masks))
        return Losses(
            {"pixels": pixels, "dice": self.settings.dice * loss.dice(logits, masks, self.VOID) / shown}
        )

    def weights(self, targets: Tensor) -> Mapping[str, float]:
        """Return the summed weights of the pixels that count, and the summed number of classes in the images."""
        shown = self._shown(targets)
        pixels = float(loss.pixel_weight(targets, self.VOID, self._class_weights(targets.device)))
        return {"pixels": pixels, "dice": shown, "lovasz": shown}

    def _shown(self, masks: Tensor) -> float:
        return float(loss.present(masks, len(self.labels), self.VOID).sum())

    def _class_weights(self, device: torch.device) -> Tensor | None:
        stated = self.settings.class_weights
        return None if stated is None else torch.tensor(stated, device=device)

    def follow(self, output: Output, teacher: Output, by: Following) -> Tensor:
        """Return the distance of the cells' classes from those of a teacher, the mean over images and cells."""
        target = loss.at_pixels(teacher["map"], (output["map"].shape[-2], output["map"].shape[-1]))
        student, tau = output["map"].float(), by.temperature if by.kind == "soft" else 1.0
        if by.kind == "hard":
            return F.cross_entropy(student, target.argmax(1))
        divergence = F.kl_div(
            (student / tau).log_softmax(1), (target / tau).log_softmax(1), log_target=True, reduction="none"
        )
        return tau**2 * divergence.sum(1).mean()

    # Answer

    def in_windows(
        self, compute: Callable[[Batch[Any]], Output], batch: Batch[Any], size: tuple[int, int]
    ) -> Output:
        """Return the map of images larger than the input, from the maps of their windows."""

        def maps(windows: Tensor) -> Tensor:
            return compute(images_only(windows))["map"]

        return {"map": torch.stack([in_windows(maps, image, size) for image in batch.images])}

    def decode(self, output: Output, at: Sequence[Geometry], ask: Ask) -> list[Areas]:
        """Return the predicted class of every pixel of the originals; void below the requested threshold."""
        return [
            Areas(
                self.mask(one, geometry, ask.threshold), self.labels, self.colours, self.VOID, geometry,
                self.settings.spacing or geometry.spacing,
            )
            for one, geometry in zip(output["map"], at, strict=True)
        ]  # fmt: skip

    def mask(self, logits: Tensor, geometry: Geometry, threshold: float | None = None) -> Mask:
        """Return the predicted class of every pixel of an original, strip by strip: (k, row, col) -> (height, width).

        Logits are resized to the original before classes are compared. Pixels outside the input are void.
        """
        mask = np.full(geometry.original, self.VOID, np.uint8)
        for rows, strip in strips_in_original(geometry, logits.float(), STRIP):
            top, place = (strip / self.settings.temperature).softmax(0).max(0) if threshold else strip.max(0)
            place = place.masked_fill(top.isnan(), self.VOID)
            place = place.masked_fill(top < threshold, self.VOID) if threshold else place
            mask[rows] = place.to(torch.uint8).numpy()
        return mask

    def pixel_shares(self, logits: Tensor) -> Tensor:
        """Return the probabilities of the classes from logits: (k, height, width) both."""
        shares: Tensor = (logits / self.settings.temperature).softmax(0)
        return shares

    def choices(self, prediction: Areas) -> Sequence[str]:
        """Return the classes that occur, the largest first; all classes if none occurs."""
        asked = (prediction.asked,) if prediction.asked else ()
        return (*asked, *(one for one in prediction.ordered() or self.labels if one not in asked))

    def focus(self, prediction: Areas, choice: str) -> Areas:
        """Return the prediction for a class, a pixel ("pole at 310,120") or a region ("in 10,20,90,80")."""
        return prediction.about(choice)

    def asked(self, prediction: Areas, output: Output) -> Asked | None:
        """Return the pixel or region to explain, the prediction there, and the other classes by probability."""
        if prediction.region is None:
            return None
        probabilities = output["map"][0].float().softmax(0)
        mean = (probabilities * _weight(prediction, 0, probabilities.shape[-2:])).sum((1, 2))
        order = [self.labels[place] for place in mean.argsort(descending=True, stable=True).tolist()]
        inside, name = prediction.within(prediction.region), prediction.where(("pixel ", "region "))
        answer = next(iter(inside.ordered()), "")
        text = answer if inside.mask.size == 1 and answer else str(inside)
        heading = f"Evidence for {prediction.asked} at {name}"
        if prediction.asked == answer:
            heading = f"Why {name} is {answer}"
        where = prediction.where()
        others = tuple(f"{one} {where}" for one in order if one != prediction.asked)
        return Asked(prediction.region, f"{prediction.asked} {where}", f"{name}: {text}", heading, others)

    def score(self, output: Output, prediction: Areas) -> Tensor:
        """Return the mean logit of the class to explain, over its pixels or the region: (b,)."""
        maps = output["map"]
        asked = prediction.asked or self.choices(prediction)[0]
        place = self.labels.index(asked)
        weight = _weight(prediction, place, maps.shape[-2:]).to(maps)
        return (maps[:, place] * weight).sum((1, 2))

    def render(self, image: Image, prediction: Areas) -> Image:
        """Return the image with each class in its colour, and a legend."""
        return plots.mask_overlay(image, prediction.mask, self.colours, self.labels)

    def compare(self, image: Image, prediction: Areas, truth: Mask) -> Image:
        """Return truth, prediction and their difference side by side."""
        wrong = np.where((prediction.mask != truth) & (truth != self.VOID), 0, self.VOID).astype(np.uint8)
        grey = image.convert("L")
        panels = (
            plots.titled(plots.mask_overlay(image, truth, self.colours), "truth"),
            plots.titled(plots.mask_overlay(image, prediction.mask, self.colours), "answer"),
            plots.titled(plots.mask_overlay(grey, wrong, (WRONG,), strength=0.8), "wrong pixels"),
        )
        size = max(13, panels[0].width // 26)
        return plots.with_legend(
            plots.beside(*panels), self.labels, self.colours, truth, prediction.mask, size=size
        )

    def glance(self, image: Image, output: Output, geometry: Geometry, truth: Mask) -> Image:
        """Return truth and prediction side by side, in a small size that is fast to draw for every image."""
        small = scaled(geometry, GLANCE)
        height, width = small.original
        thumbnail = image.resize((width, height))
        rows, cols = (
            (2 * np.arange(n) + 1) * side // (2 * n)
            for n, side in zip(small.original, truth.shape, strict=True)
        )
        true, answer = truth[rows[:, None], cols], self.mask(output["map"][0], small)
        both = (plots.mask_overlay(thumbnail, one, self.colours) for one in (true, answer))
        return plots.with_legend(
            plots.beside(*both, gap=2), self.labels, self.colours, true, answer, size=LETTERS
        )

    # Proof

    def fingerprint(self, output: Output) -> Tensor:
        """Return the probabilities of the classes, averaged over the cells of a grid."""
        probabilities = output["map"].float().softmax(1)
        rows, cols = (min(SIDE, side) for side in probabilities.shape[-2:])
        return within(F.adaptive_avg_pool2d(probabilities, (rows, cols)))

    def agree(self, one: Output, other: Output, tolerance: float = 0.0) -> Tensor:
        """Return for which images at least `SAME` of the cells have the same class."""
        p, answer = one["map"].float().softmax(1), other["map"].argmax(1, keepdim=True)
        gap = (p.amax(1, keepdim=True) - p.gather(1, answer))[:, 0]
        return (gap <= tolerance).float().mean((1, 2)) >= SAME

    def in_image(self, output: Output, onto: InOriginal) -> Output:
        """Return the class of each pixel of the image, for exported graphs: (b, height, width)."""
        maps = output["map"].float()
        rows, cols = onto.weights(maps.shape[-2], maps.shape[-1])
        return {"classes": (rows @ (maps @ cols.mT)).argmax(1)}

    # Evaluation

    @property
    def probe(self) -> SegmentProbe:
        return SegmentProbe(self.labels, self.VOID)

    def evaluation(self) -> SegmentEvaluation:
        return SegmentEvaluation(self.labels, self.VOID, self.settings.temperature, self.settings.spacing)


def _weight(prediction: Areas, place: int, grid: Sequence[int]) -> Tensor:
    """Return the weight of each cell of a map in an explanation: (row, col), with sum 1.

    The weights are equal over the cells in the region, or over the cells predicted as the class. Without a cell in the
    region, the nearest cells count; without a cell of the class, all cells.
    """
    geometry = prediction.geometry
    rows, cols = grid[0], grid[1]
    y, x = ((np.arange(n) + 0.5) * (side / n) for n, side in zip((rows, cols), geometry.size, strict=True))
    centres = np.stack(np.broadcast_arrays(x[None], y[:, None]), -1).reshape(-1, 2)
    at = points_in_original(geometry, centres).reshape(rows, cols, 2)
    if prediction.region is None:
        height, width = geometry.original
        inside = np.clip(at.astype(np.int64), 0, (width - 1, height - 1))
        cells = prediction.mask[inside[..., 1], inside[..., 0]] == place
    else:
        left, top, right, bottom = prediction.region
        cells = ((at >= (left, top)) & (at < (right, bottom))).all(-1)
        if not cells.any():
            distance = np.abs(at - ((left + right) / 2, (top + bottom) / 2)).sum(-1)
            cells = distance == distance.min()
    weight = cells.astype(np.float32) if cells.any() else np.ones((rows, cols), np.float32)
    return torch.from_numpy(weight / weight.sum())
