"""Frozen features and a head on them: the draft of a model in seconds.

Features are computed once for each picture and kept on disk under what they depend on: the weights, the
preprocessing, the precision, and the content of the file. New pictures only cost themselves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn

from vitrail.core.files import replace
from vitrail.core.paths import cache_dir
from vitrail.data.loader import Pictures, Share, evaluation
from vitrail.data.manifest import Manifest, Row
from vitrail.data.preprocess import Preprocess
from vitrail.layers.encoder import Encoder
from vitrail.layers.pool import Pool
from vitrail.layers.tokens import FeatureSpec
from vitrail.layers.tokens import Pool as Kind
from vitrail.runs.device import fast_bf16
from vitrail.training.loop import autocast

Vectors = NDArray[np.float32]
BATCH = 16
STRENGTHS = (0.003, 0.03, 0.3)
"""Inverse strengths of the head's regularisation that are tried, on features of deviation 1."""


def pool_kind(spec: FeatureSpec) -> Kind:
    """Return how a frozen network is pooled: class token and mean of patches where it has both."""
    if spec.pool == "own":
        return "own"
    return "cls_mean" if "cls" in spec.prefix else "mean"


class Frozen:
    """A frozen encoder that turns pictures into vectors, and remembers those it has seen."""

    def __init__(self, encoder: Encoder, preprocess: Preprocess, device: torch.device) -> None:
        self.encoder = encoder.eval().requires_grad_(False).to(device)
        self.preprocess, self.device = preprocess, device
        self.pool = Pool(encoder.spec, pool_kind(encoder.spec))
        self.precision = "bf16" if fast_bf16(device) else "float32"
        self.path = cache_dir() / "features" / f"{self._key()}.safetensors"

    def _key(self) -> str:
        digest = blake2b(digest_size=16)
        digest.update(json.dumps([self.preprocess.to_dict(), self.pool.kind, self.precision]).encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def vectors(
        self, manifest: Manifest, rows: Sequence[Row], progress: Callable[[int, int], None] | None = None
    ) -> Vectors:
        """Return one vector a row, (n, d), computing only those of pictures not seen before."""
        known = self._read()
        new = list({row.hash: row for row in rows if row.hash not in known}.values())
        if new:
            for done, (hashes, vectors) in enumerate(self._compute(manifest, new), 1):
                known |= zip(hashes, vectors, strict=True)
                if progress is not None:
                    progress(min(len(new), done * BATCH), len(new))
            self._write(known)
        return np.stack([known[row.hash] for row in rows])

    def missing(self, rows: Sequence[Row]) -> int:
        """Return how many pictures would have to be computed."""
        return len({row.hash for row in rows} - self._read().keys())

    def seconds_a_picture(self, manifest: Manifest, rows: Sequence[Row]) -> float:
        """Measure what one picture costs, on one batch after another that warms up."""
        some = [*rows[:BATCH]] * (1 + (len(rows) < BATCH))
        took = 0.0
        for _ in range(2):
            began = time.perf_counter()
            next(iter(self._compute(manifest, some[:BATCH], workers=0)))
            took = time.perf_counter() - began
        return took / min(BATCH, len(some))

    @torch.inference_mode()
    def _compute(
        self, manifest: Manifest, rows: Sequence[Row], workers: int = 1
    ) -> Iterator[tuple[list[str], Vectors]]:
        """Yield hashes and vectors, batch by batch; pictures are read in a process of their own meanwhile."""
        pictures = Pictures(rows, manifest.root, self.preprocess, str)
        hashes = {row.id: row.hash for row in rows}
        for batch in evaluation(pictures, BATCH, Share(), workers):
            with autocast(self.device, self.precision):
                pooled = self.pool(self.encoder(batch.images.to(self.device)))
            yield [hashes[one] for one in batch.ids], pooled.float().cpu().numpy()

    def _read(self) -> dict[str, Vectors]:
        try:
            with safe_open(self.path, framework="np") as handle:
                hashes = json.loads(handle.metadata()["hashes"])
                return dict(zip(hashes, handle.get_tensor("vectors"), strict=True))
        except (FileNotFoundError, SafetensorError, OSError, KeyError, ValueError):
            return {}  # a cache that cannot be read is computed again

    def _write(self, known: dict[str, Vectors]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"hashes": json.dumps(list(known))}
        tensors = {"vectors": np.stack(list(known.values()))}
        replace(self.path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


class Head(NamedTuple):
    """A linear classifier on vectors: logits = x weightᵀ + bias."""

    weight: Vectors  # (k, d)
    bias: Vectors  # (k,)
    strength: float

    def logits(self, vectors: Vectors) -> Vectors:
        """(n, d) -> (n, k)."""
        found: Vectors = vectors @ self.weight.T + self.bias
        return found

    def put_into(self, linear: nn.Linear) -> None:
        """Give a network's last layer these numbers."""
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(self.weight))
            linear.bias.copy_(torch.from_numpy(self.bias))


def fit_head(vectors: Vectors, truth: NDArray[np.int64], groups: NDArray[np.int64], classes: int) -> Head:
    """Fit multinomial logistic regression, its regularisation chosen on a fifth held back inside."""
    from sklearn.model_selection import GroupShuffleSplit

    inner, outer = next(GroupShuffleSplit(1, test_size=0.2, random_state=0).split(vectors, truth, groups))
    shares = {}
    for head in _path(vectors[inner], truth[inner], classes, STRENGTHS):
        right = head.logits(vectors[outer]).argmax(1) == truth[outer]
        shares[head.strength] = float(right.mean())
    return fit(vectors, truth, classes, max(shares, key=shares.__getitem__))


def fit(vectors: Vectors, truth: NDArray[np.int64], classes: int, strength: float) -> Head:
    """Fit the head at one strength."""
    return next(_path(vectors, truth, classes, (strength,)))


def _path(
    vectors: Vectors, truth: NDArray[np.int64], classes: int, strengths: Sequence[float]
) -> Iterator[Head]:
    """Fit a head at each strength, each from where the one before ended; the features' scale is folded in."""
    from sklearn.linear_model import LogisticRegression

    mean, deviation = vectors.mean(0), vectors.std(0) + 1e-6
    scaled = (vectors - mean) / deviation
    present = np.unique(truth)
    model = LogisticRegression(max_iter=200, tol=1e-3, warm_start=True)
    for strength in strengths:
        weight = np.zeros((classes, vectors.shape[1]), dtype=np.float32)
        # A class without a picture in this part is possible in no answer of it.
        bias = np.full(classes, -30.0, dtype=np.float32)
        if len(present) == 1:
            bias[present] = 0.0
        else:
            model.set_params(C=strength).fit(scaled, truth)
            weight[present] = _rows(model.coef_) / deviation
            bias[present] = _rows(model.intercept_) - weight[present] @ mean
        yield Head(weight, bias, strength)


def _rows(numbers: Vectors) -> Vectors:
    """Return one row a class: scikit-learn keeps one for a pair, the second against the first."""
    if len(numbers) > 1:
        return numbers
    halves: Vectors = (np.concatenate([-numbers, numbers]) / 2).astype(np.float32)
    return halves


@dataclass(frozen=True)
class OutOfFold:
    """What heads said of pictures that they had not seen: logits (n, k), and the same from half the pictures."""

    logits: Vectors
    half: Vectors


def out_of_fold(
    vectors: Vectors, truth: NDArray[np.int64], groups: NDArray[np.int64], classes: int, folds: int = 5
) -> OutOfFold:
    """Score every picture once by a head that saw neither it nor its group (stratified, grouped folds)."""
    from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold

    few = min(folds, int(np.bincount(truth, minlength=classes)[np.unique(truth)].min()))
    splitter = StratifiedGroupKFold(max(2, few), shuffle=True, random_state=0)
    logits = np.zeros((len(vectors), classes), dtype=np.float32)
    half = np.zeros_like(logits)
    for learnt, held in splitter.split(vectors, truth, groups):
        head = fit_head(vectors[learnt], truth[learnt], groups[learnt], classes)
        logits[held] = head.logits(vectors[held])
        smaller, _ = next(
            GroupShuffleSplit(1, train_size=0.5, random_state=0).split(learnt, truth[learnt], groups[learnt])
        )
        part = learnt[smaller]
        half[held] = fit(vectors[part], truth[part], classes, head.strength).logits(vectors[held])
    return OutOfFold(logits, half)
