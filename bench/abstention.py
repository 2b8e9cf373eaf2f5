"""None of these and label sets: what is noticed by each distance, and what conformal sets deliver over 200 splits.

`python -m bench.abstention [IMAGES A CLASS]`, by default 300. CIFAR-10 at 112 px with the frozen ViT-S/14 of ../shared
beside the repository, as a draft has it. Where MAPIE and pytorch-ood are installed (they are no dependency), their
answers on the same numbers are compared with ours.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.draft import SHARED
from bench.pairs import machine
from vitrail.data.far_images import KINDS, far_images
from vitrail.data.manifest import Manifest, Row
from vitrail.data.prepare import prepare
from vitrail.infer.backends import PLAIN
from vitrail.metrics.conformal import limit, promise
from vitrail.metrics.mahalanobis import unit
from vitrail.metrics.novelty import (
    CANDIDATES,
    Detector,
    Known,
    Pair,
    against,
    distances_at,
    fit_places,
    leave_one_out,
    scales_of,
    select,
)
from vitrail.tasks.classify.probe import ClassProbe
from vitrail.training.feature_cache import Frozen
from vitrail.training.linear_probe import fit_head
from vitrail.weights.preprocessing import published_preprocess
from vitrail.weights.pretrained import from_path

SIZE = (112, 112)
SPLITS = 200
ERROR = 0.05
FAR = 200


def features(place: Path, each: int) -> tuple[Frozen, Manifest, list[Row], NDArray[np.int64]]:
    """Return the frozen network and some images of each class."""
    with zipfile.ZipFile(SHARED / "data" / "cifar10-10k.zip") as archive:
        archive.extractall(place)
    manifest = prepare(place / "cifar10-10k").manifest
    names = manifest.truth.names
    rows = [row for name in names for row in [r for r in manifest.rows() if r.target == name][:each]]
    weights = from_path(SHARED / "weights" / "dinov2-small-saliency")
    frozen = Frozen(weights.build(image=SIZE), published_preprocess(weights, SIZE, 3), torch.device("cpu"))
    return frozen, manifest, rows, np.array([names.index(row.target) for row in rows])


def noticing(vectors: dict[str, Any], truth: Any, far: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield a row for each score that is tried: classes left out, and images of other kinds."""
    order = np.random.default_rng(0).permutation(len(truth))
    half, rest = order[: len(order) // 2], order[len(order) // 2 :]
    train, held = (Known({p: x[i] for p, x in vectors.items()}, truth[i]) for i in (half[:1000], rest[:1000]))
    gaussians = fit_places(train)
    own, rounds = distances_at(gaussians, held.vectors), list(leave_one_out(train, held, ERROR))
    others = {kind: distances_at(gaussians, one) for kind, one in far.items()}
    yield f"\n| score | a class left out: AUROC, noticed | {' | '.join(f'{k}: AUROC, noticed' for k in far)} |"
    yield "|---|---|" + "---|" * len(far)
    plain = [((part,),) for part in {part for parts in CANDIDATES for part in parts}]
    every = sorted({*CANDIDATES, *(one for (one,) in plain)}, key=lambda parts: (len(parts), str(parts)))
    for parts in every:
        detector = Detector(parts, scales_of(parts, own), gaussians)
        scores = detector.scores(own)
        near = _words([one.scored(parts) for one in rounds])
        cells = [_words([against(scores, detector.scores(one))]) for one in others.values()]
        name = " or ".join(f"{p.place}, {'relative' if p.relative else 'plain'}" for p in parts)
        yield f"| {name} | {near} | {' | '.join(cells)} |"
    chosen = select(train, held, far, ERROR)
    found = {"classes left out": chosen.near, **chosen.far}
    yield f"\nchosen: {chosen.detector.parts}; " + "; ".join(
        f"{name}: AUROC {one.auroc.value:.3f} ({one.auroc.low:.3f} to {one.auroc.high:.3f}), noticed {one.share}"
        for name, one in found.items()
        if one
    )


def _words(pairs: list[Pair]) -> str:
    area = np.mean([pair.auroc for pair in pairs])
    noticed = [
        (pair.scores[pair.unknown] > limit(np.sort(pair.scores[~pair.unknown]).tolist(), ERROR)).mean()
        for pair in pairs
    ]
    return f"{area:.3f}, {100 * np.mean(noticed):.0f} %"


def cross_entropies(vectors: Any, truth: Any) -> tuple[Any, Any]:
    """Return scores of all labels and the classes of images that the head has not seen."""
    draw = np.random.default_rng(1).permutation(len(truth))
    fitted, rest = draw[: len(draw) // 4], draw[len(draw) // 4 :]
    probe = ClassProbe([str(i) for i in range(10)])
    head = fit_head(probe, vectors[fitted], truth[fitted], np.arange(len(fitted)))
    logits = torch.from_numpy(head.logits(vectors[rest])).double()
    return -logits.log_softmax(-1).numpy(), truth[rest]


def coverage(scores: Any, truth: Any) -> Iterator[str]:
    """Yield a row for each number of calibration images: what 200 splits cover, and what was promised."""
    yield f"\n| calibration images | covered, mean of {SPLITS} splits | spread | promised range holds | labels a set |"
    yield "|---|---|---|---|---|"
    own = scores[np.arange(len(truth)), truth]
    for count in (19, 100, 200, 500, 1000):
        covered, sizes, inside = [], [], []
        found = promise(count, ERROR)
        assert found is not None
        for seed in range(SPLITS):
            order = np.random.default_rng(seed).permutation(len(truth))
            bound = limit(np.sort(own[order[:count]]).tolist(), ERROR)
            test = order[count:]
            covered.append(float((own[test] <= bound).mean()))
            sizes.append(float((scores[test] <= bound).sum(1).mean()))
            inside.append(found.low <= covered[-1] <= found.high)
        yield (
            f"| {count} | {100 * np.mean(covered):.2f} % | {100 * np.std(covered):.2f} points | "
            f"{100 * found.low:.1f} to {100 * found.high:.1f} %: {100 * np.mean(inside):.0f} % of splits | "
            f"{np.mean(sizes):.2f} |"
        )


def beside_others(vectors: Any, truth: Any, scores: Any, classes: Any) -> Iterator[str]:
    """Yield how our numbers agree with those of MAPIE and pytorch-ood, where they are installed."""
    if find_spec("pytorch_ood"):
        from pytorch_ood.detector import RMD, Mahalanobis
        from scipy.stats import spearmanr
        from sklearn.decomposition import PCA

        from vitrail.metrics.mahalanobis import distances, fit_gaussians

        few = PCA(24, random_state=0).fit_transform(unit(vectors))
        train, test = few[::2], few[1::2]
        ours = distances(fit_gaussians(train, truth[::2]), test)
        x, y, z = (torch.from_numpy(one) for one in (unit(train), truth[::2], unit(test)))
        for kind, mine in ((RMD, ours.of(True)), (Mahalanobis, ours.nearest)):
            theirs = kind(None).fit_features(x.float(), y).predict_features(z.float()).numpy()
            yield f"pytorch-ood {kind.__name__}: rank correlation {spearmanr(mine, theirs).statistic:.6f}"
    if find_spec("mapie"):
        yield mapie(scores, classes)


def mapie(scores: Any, classes: Any) -> str:
    """Return how many of MAPIE's sets (LAC) are equal to ours, on the same probabilities."""
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        """A classifier whose inputs are its probabilities."""

        def __init__(self) -> None:
            self.classes_, self.is_fitted_ = np.arange(10), True

        def fit(self, x: Any, y: Any) -> Any:
            return self

        def predict_proba(self, x: Any) -> Any:
            return np.exp(-x) / np.exp(-x).sum(1, keepdims=True)

        def predict(self, x: Any) -> Any:
            return x.argmin(1)

    calibrate, test = slice(0, 800), slice(800, None)
    other = SplitConformalClassifier(Given(), confidence_level=1 - ERROR, conformity_score="lac", prefit=True)
    other.conformalize(scores[calibrate], classes[calibrate])
    theirs = other.predict_set(scores[test])[1][:, :, 0]
    own = np.sort(scores[calibrate][np.arange(800), classes[calibrate]])
    ours = scores[test] <= limit(own.tolist(), ERROR)
    return f"MAPIE, LAC: {int((theirs == ours).all(1).sum()):,} of {len(ours):,} sets are equal"


def main() -> None:
    each = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    if not SHARED.is_dir():
        print("skipped: ../shared is not here")
        return
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        os.environ.setdefault("VITRAIL_CACHE", str(Path(name) / "cache"))
        frozen, manifest, rows, truth = features(Path(name), each)
        vectors = frozen.by_place(manifest, rows, PLAIN)
        far = {kind: frozen.of_images(far_images(kind, FAR), PLAIN) for kind in KINDS}
        doubled = {place: x.astype(np.float64) for place, x in vectors.items()}
        for line in noticing(doubled, truth, far):
            print(line, flush=True)
        scores, classes = cross_entropies(vectors["last"], truth)
        print(
            f"\nthe head is right in {100 * (scores.argmin(1) == classes).mean():.1f} % of {len(classes):,} images"
        )
        for line in (*coverage(scores, classes), *beside_others(doubled["last"], truth, scores, classes)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
