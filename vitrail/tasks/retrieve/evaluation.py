"""Evaluation of retrieval: recall at 1, 5 and 10 and median ranks in both directions, over a whole set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.batch import Geometry
from vitrail.data.manifest import Row
from vitrail.metrics.recall_at import Ints, Pairing, median_rank, pairing_of, ranks, recall_at
from vitrail.tasks.result import Gathered, Result, Scope
from vitrail.tasks.retrieve.prediction import Vectors

Array = NDArray[Any]

AT = (1, 5, 10)
"""Recall is measured at these numbers of candidates."""

TO_TEXT, TO_IMAGE = "image_to_text", "text_to_image"
"""The directions: the captions of an image are looked for, or the images of a caption."""


class Whole(NamedTuple):
    """All images and different captions of a set with their vectors, and the ranks of what is right.

    `texts` are the different captions, `pairs` which image has which; `to_text` is the rank of each image's nearest
    right caption (n,), `to_image` the rank of each caption's nearest right image (m,).
    """

    images: Vectors
    texts: tuple[str, ...]
    vectors: Vectors
    pairs: Pairing
    to_text: Ints
    to_image: Ints


class RetrievalEvaluation:
    """Recall at 1 while training, its mean of both directions; all scores of report.json afterwards.

    `encode` makes vectors of captions where the outputs have none (`Retrieve.answer`).
    """

    main, unit = "recall1", "%"

    def __init__(self, encode: Callable[[Sequence[str]], Vectors] | None = None) -> None:
        self.encode = encode
        self.kept = Gathered()
        self._whole: Whole | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: nothing of the network."""
        return {"encode": None, "kept": self.kept, "_whole": None}

    @property
    def rows(self) -> list[Row]:
        return self.kept.rows

    def update(
        self,
        rows: Sequence[Row],
        output: Mapping[str, Tensor],
        truths: Sequence[tuple[str, ...]],
        at: Sequence[Geometry],
    ) -> None:
        """Add the vectors of images (b, e), and those of the captions of each."""
        if "text" in output:
            vectors = [text[: len(own)].numpy() for text, own in zip(output["text"], truths, strict=True)]
        else:
            assert self.encode is not None, (
                "outputs without texts are those of a predictor, whose task encodes"
            )
            flat = self.encode([caption for own in truths for caption in own])
            vectors = np.split(flat, np.cumsum([len(own) for own in truths])[:-1])
        arrays: dict[str, Array] = {"image": output["image"].numpy()}
        arrays |= {"captions": _listed(truths), "text": _listed(vectors)}
        factor = output["factor"].numpy() if "factor" in output else np.full(len(truths), np.nan)
        self.kept.add(rows, {**arrays, "factor": factor})
        self._whole = None

    def merge(self, other: RetrievalEvaluation) -> None:
        """Add the images of another evaluation and sort all by id."""
        self.kept.merge(other.kept)
        self._whole = None

    def whole(self) -> Whole:
        """Return all vectors and ranks, computed once."""
        if self._whole is None:
            pairs, texts, firsts = pairing_of(self.kept["captions"].tolist())
            images, vectors = self.kept["image"], np.concatenate(self.kept["text"].tolist())[firsts]
            to_text = ranks(images, vectors, pairs)
            to_image = ranks(vectors, images, pairs.turned())
            self._whole = Whole(images, texts, vectors, pairs, to_text, to_image)
        return self._whole

    def scores(self) -> dict[str, float]:
        """Return recall at 1, the loss over the whole set, and the number of images."""
        if not len(self.kept):
            return {"recall1": 0.0, "loss": float("nan"), "pictures": 0}
        scores = self.resample(np.ones(len(self.kept)))
        return {"recall1": scores["recall1"], "loss": self.loss(), "pictures": len(self.kept)}

    def loss(self) -> float:
        """Return the softmax loss of the whole set at the scale of the network: it grows with the size of the set."""
        whole, factor = self.whole(), float(self.kept["factor"][0])
        if not np.isfinite(factor):
            return 0.0
        return (
            _entropy(factor * whole.images, whole.vectors, whole.pairs)
            + _entropy(factor * whole.vectors, whole.images, whole.pairs.turned())
        ) / 2

    def calibrate(self) -> Mapping[str, Any]:
        """Return no settings: a cosine is not a probability, and nothing is fitted."""
        return {}

    def per_image(self) -> Mapping[str, Array]:
        """Return recall at 1 of each image, the mean of both directions, and the rank of its nearest caption."""
        whole = self.whole()
        image, found = whole.pairs.image, whole.to_image[whole.pairs.text] == 1
        of_captions = np.bincount(image, weights=found) / np.bincount(image)
        return {"recall1": ((whole.to_text == 1) + of_captions) / 2, "rank": whole.to_text}

    def resample(self, counts: Array) -> Mapping[str, float]:
        """Return the scores of a bootstrap sample; captions count as often as their images."""
        whole, weights = self.whole(), np.asarray(counts, np.float64)
        of_captions = weights[whole.pairs.image]
        sides = {
            TO_TEXT: (whole.to_text, weights),
            TO_IMAGE: (whole.to_image[whole.pairs.text], of_captions),
        }
        scores = {
            f"{side}_{k}": recall_at(rank, k, share) for side, (rank, share) in sides.items() for k in AT
        }
        scores |= {f"{side}_rank": median_rank(rank, share) for side, (rank, share) in sides.items()}
        return {"recall1": (scores[f"{TO_TEXT}_1"] + scores[f"{TO_IMAGE}_1"]) / 2, **scores}

    def result(self, scope: Scope = Scope()) -> Result:
        """Return everything that reports contain."""
        from vitrail.tasks.retrieve.report import result_of  # the report imports this module

        return result_of(self, scope)


def _listed(values: Sequence[Any]) -> Array:
    """Return one object per image: tuples and arrays of different lengths."""
    array = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        array[place] = value
    return array


def _entropy(queries: Vectors, candidates: Vectors, pairs: Pairing, step: int = 512) -> float:
    """Return the mean of -log of the probability that all right candidates of a query have together."""
    total, partners = 0.0, pairs.partners()
    for start in range(0, len(queries), step):
        logits = (queries[start : start + step] @ candidates.T).astype(np.float64)
        for place, row in enumerate(logits, start):
            total += np.logaddexp.reduce(row) - np.logaddexp.reduce(row[partners[place]])
    return float(total / len(queries))
