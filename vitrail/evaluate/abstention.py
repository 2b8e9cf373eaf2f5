"""Fit "none of these" and label sets: on features of training images, with limits from images kept out of the fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.doctor import workers
from vitrail.data.far_images import KINDS, far_images
from vitrail.data.loader import load_for
from vitrail.data.manifest import Row, group_key
from vitrail.data.preprocess import Preprocess
from vitrail.infer.predictor import BATCH, Predictor, Ready, batch_of
from vitrail.layers.heads import Output
from vitrail.layers.mahalanobis import Distance, Novelty, VectorOutputs, output_of
from vitrail.metrics.conformal import least_images
from vitrail.metrics.intervals import Interval
from vitrail.metrics.mahalanobis import unit
from vitrail.metrics.novelty import Detector, Known, Noticed, Selection, select
from vitrail.runs.network import with_reader
from vitrail.runs.proof import proof_image_for
from vitrail.runs.run_network import answering, run_network
from vitrail.tasks.abstention import ERROR, Abstaining, Abstention, Detection, DistancePart, Range, novelty_of

FIT = 1000
"""Images on which Gaussians are fitted, if there are not so many classes that each needs `FEW`."""

FEW, MANY = 5, 200
"""Smallest and largest number of images of a class for the fit."""

HELD = 1000
"""Largest number of images that set the limits: a promise of 95 % is then kept within 1.4 points."""

FLAT = 1e-4
"""Vectors of length 1 whose values vary less than this over images: distances would be rounding errors."""

FAR = 64
"""Images of each other kind."""

Split = Literal["validation", "held-out"]

Places = dict[str, NDArray[np.float64]]
"""Vectors (n, d) of the same images by place."""


class Evidence(NamedTuple):
    """What is fitted on: vectors of training images, of images kept out of the fit, and of other kinds of images.

    `label_scores` are the sorted scores of the true labels of images kept out, for each class. `learned` says whether
    the network itself was trained on the classes.
    """

    train: Known
    held: Known
    far: Mapping[str, Places]
    label_scores: Sequence[Sequence[float]]
    learned: bool = True
    split: Split = "validation"


class Fitted(NamedTuple):
    """What a model file holds of a fit, and the module that computes the novelty score, if there is one."""

    abstention: Abstention
    novelty: Novelty | None


def fit_abstention(evidence: Evidence) -> Fitted:
    """Return "none of these" and label sets; with too few images kept out of the fit, only the reason."""
    shared: dict[str, Any] = {
        "label_scores": tuple(tuple(map(_short, scores)) for scores in evidence.label_scores),
        "learned": evidence.learned,
        "split": evidence.split,
    }
    if reason := _obstacle(evidence):
        return Fitted(Abstention(reason=reason, **shared), None)
    chosen = select(evidence.train, evidence.held, evidence.far, ERROR)
    parts = tuple(
        DistancePart(
            place=part.place, width=evidence.train.vectors[part.place].shape[1], relative=part.relative
        )
        for part in chosen.detector.parts
    )
    abstention = Abstention(
        parts=parts,
        classes=len(np.unique(evidence.train.truth)),
        novelty=tuple(map(_short, sorted(chosen.scores.tolist()))),
        **_figures(chosen),
        **shared,
    )
    return Fitted(abstention, module_of(chosen.detector, abstention))


def _obstacle(evidence: Evidence) -> str:
    """Return why there can be no novelty score; empty if there can."""
    if not evidence.train.vectors:
        return "the head of this network does not read one vector per image"
    held, least = len(evidence.held.truth), least_images(ERROR)
    if held < least:
        return (
            f"{held} {evidence.split} images (groups count once) are too few: a limit of {100 * ERROR:g} % false "
            f"alarms takes {least}"
        )
    if len(np.unique(evidence.train.truth)) < 2:
        return "there are training images of one class only"
    if min(float(unit(x).std(0).max()) for x in evidence.train.vectors.values()) < FLAT:
        return "the network gives nearly the same features for every image"
    return ""


def _figures(chosen: Selection) -> dict[str, Any]:
    far = {kind: _detection(found) for kind, found in chosen.far.items()}
    return {"near": None if chosen.near is None else _detection(chosen.near), "far": far}


def _detection(found: Noticed) -> Detection:
    return Detection(
        auroc=_range(found.auroc), noticed=_range(found.share), known=found.known, unknown=found.unknown
    )


def _range(one: Interval) -> Range:
    return Range(**one.to_dict())


def _short(number: float) -> float:
    """Return a number with six digits: more would be noise, and the file holds many of them."""
    return float(f"{number:.6g}")


def module_of(detector: Detector, abstention: Abstention) -> Novelty:
    """Return the module that computes the scores of a detector, in float32."""
    novelty = novelty_of(abstention)
    for distance, part, scale in zip(novelty.distances, detector.parts, detector.scales, strict=True):
        assert isinstance(distance, Distance)
        found = detector.gaussians[part.place]
        values = {
            "centre": found.centre,
            "within": found.within,
            "means": found.means,
            "scale": np.array(scale),
        }
        values |= {"whole": found.whole} if part.relative else {}
        distance.load_state_dict({name: torch.from_numpy(value).float() for name, value in values.items()})
    return novelty.eval()


def of_run(
    predictor: Predictor, train: Sequence[Row], held: Sequence[Row], root: Path, source: str
) -> Evidence:
    """Compute what a trained model is fitted on: some images of each class, and some of `held`, one of each group.

    `source` is the data that the model was trained on, as the recipe names it.

    Raises:
        DataError: an image can no longer be read.
    """
    task = predictor.task
    assert isinstance(task, Abstaining)
    classes = np.array([task.read(row, root) for row in train])
    some = [train[i] for i in some_of_each(classes)]
    apart = independent(held)
    compute = _Vectors(predictor)
    fitted, kept = compute.rows(some, root), compute.rows(apart, root)
    truth = np.array([task.read(row, root) for row in apart])
    far = far_vectors(predictor.preprocess, source, lambda images: compute.vectors(compute.images(images)))
    scores = label_scores(task.nonconformity(kept), truth, len(task.labels))
    return Evidence(
        Known(compute.vectors(fitted), classes[some_of_each(classes)]),
        Known(compute.vectors(kept), truth),
        far,
        scores,
    )


def far_vectors(
    steps: Preprocess, source: str, compute: Callable[[Sequence[NDArray[np.uint8]]], Places]
) -> dict[str, Places]:
    """Return the vectors of other kinds of images; not of the kind that the model was trained on."""
    kinds = [] if steps.raw else [kind for kind in KINDS if kind != source]
    return {kind: compute(far_images(kind, FAR, steps.channels)) for kind in kinds}


def some_of_each(classes: NDArray[np.int64]) -> list[int]:
    """Return the places of at most `MANY` images of each class, about `FIT` in all, the same on every call."""
    most = min(MANY, max(FEW, FIT // max(1, len(np.unique(classes)))))
    order = np.random.default_rng(0).permutation(len(classes))
    chosen = [order[classes[order] == one][:most] for one in np.unique(classes)]
    return sorted(np.concatenate(chosen).tolist()) if chosen else []


def independent(rows: Sequence[Row], most: int = HELD) -> list[Row]:
    """Return one image of each group, at most so many, the same on every call."""
    firsts = list({group_key(row): row for row in reversed(rows)}.values())[::-1]
    order = np.random.default_rng(0).permutation(len(firsts))[:most]
    return [firsts[i] for i in sorted(order.tolist())]


def label_scores(nonconformity: Tensor, truth: NDArray[np.int64], classes: int) -> list[list[float]]:
    """Return the sorted scores of the true label of images, for each class: (n, k), (n,) -> k lists."""
    own = nonconformity.double().numpy()[np.arange(len(truth)), truth]
    return [sorted(own[truth == one].tolist()) for one in range(classes)]


class _Vectors:
    """Computes outputs and feature vectors of a model, with one forward pass per image."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, network = predictor, predictor.network
        pixels = predictor.ready(proof_image_for(predictor.preprocess)).pixels
        with torch.inference_mode():
            features = network.encode({"images": pixels[None].to(predictor.device)}, whole=True)
        reader = VectorOutputs(network.places(features))
        self.places = reader.places
        self.network = with_reader(network, (*network.outputs, *reader.makes), reader)

    def rows(self, rows: Sequence[Row], root: Path) -> Output:
        """Return the outputs of rows, in order."""
        steps = self.predictor.preprocess
        read = partial(_read, root, steps)
        return self._collected(rows, lambda row: self.predictor.ready(read(row)))

    def images(self, images: Sequence[NDArray[np.uint8]]) -> Output:
        """Return the outputs of decoded images."""
        return self._collected(images, self.predictor.ready)

    def vectors(self, output: Output) -> Places:
        """Return the vectors of outputs, by place."""
        return {place: output[output_of(place)].double().numpy() for place in self.places}

    def _collected(self, sources: Sequence[Any], ready: Callable[[Any], Ready]) -> Output:
        parts: list[Output] = []
        with ThreadPoolExecutor(workers()) as pool:
            for start in range(0, len(sources), BATCH):
                batch = batch_of(list(pool.map(ready, sources[start : start + BATCH])))
                compute = answering(self.predictor.task, self.network)
                parts.append(next(run_network(compute, [batch], self.predictor.device))[1])
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _read(root: Path, steps: Preprocess, row: Row) -> NDArray[Any]:
    return load_for(steps, root, row)
