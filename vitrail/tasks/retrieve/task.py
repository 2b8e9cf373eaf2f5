"""Retrieval: images and captions as vectors of one space (CLIP, Radford et al. 2021, arXiv:2103.00020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail import plots
from vitrail.core.errors import SettingError
from vitrail.data.batch import Batch, Geometry
from vitrail.layers.contrastive_head import ContrastiveHead
from vitrail.layers.heads import Output
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.base import Ask, Losses, Task, within
from vitrail.tasks.result import Exports
from vitrail.tasks.retrieve.evaluation import RetrievalEvaluation
from vitrail.tasks.retrieve.head import build_head
from vitrail.tasks.retrieve.loss import Pairs, sigmoid_loss, softmax_loss
from vitrail.tasks.retrieve.prediction import Captioned
from vitrail.tasks.retrieve.sentence_encoder import load_sentence_encoder
from vitrail.tasks.retrieve.settings import RetrieveSettings
from vitrail.tasks.retrieve.targets import CaptionTargets
from vitrail.tasks.retrieve.text_side import TextSide, cut_rows, encoded, head_of

if TYPE_CHECKING:
    from PIL.Image import Image


SHOWN = 3
"""Captions that are drawn below an image."""

GLANCE = 320
"""Pixels of the long side of an image that is drawn during training."""

COSINE = ".2f"
"""How cosines are written on drawings."""

SAME = 1e-3
"""Largest difference of a value of two image vectors that agree, if the model knows no captions."""


class Retrieve(CaptionTargets, TextSide, Task[tuple[str, ...], Captioned]):
    """A contrastive loss of pairs of image and caption; any encoder, and a text tower in the head.

    `vocabulary` is made from the settings and the training captions when a training starts (`learn_vocabulary`) and is
    stored in the header of the model file, because it is too long for a setting. So are `sentence`, the sizes of a
    sentence encoder that is the text tower, and `known`, the texts among which predictions are chosen. Opening the file
    sets them.
    """

    name = "retrieve"
    kind = "caption"
    Settings = RetrieveSettings
    couples = True
    outputs: Mapping[str, tuple[str, ...]] = {"image": ("number",)}
    columns = ("caption", "cosine")
    agreement = "nearest captions are the same"
    meanings: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "image": "the unit vector of the image; its dot product with the unit vector of a text, which "
            "vitrail.infer.words.text_vectors makes, is their cosine"
        }
    )
    begins_from = ("retrieve",)
    head_settings = (
        "pool",
        "embed",
        "text_width",
        "text_depth",
        "text_heads",
        "context",
        "gelu",
        "vocabulary",
    )
    exports = Exports("zero-shot-image-classification", ("recall1",))

    # Network

    def head(self, spec: FeatureSpec) -> ContrastiveHead:
        """Return the contrastive head with a text tower for the tokens of the vocabulary."""
        head = build_head(spec, self.settings, self._vocabulary(), self.sentence)
        if self._sentence_folder:
            load_sentence_encoder(head.tower, self._sentence_folder)
        return head

    # Training

    def prepare(self, batch: Batch[Any], rng: np.random.Generator, progress: float) -> Batch[Any]:
        """Add the `tokens` of the first caption of each image; the loader has put the drawn one first."""
        captions: Sequence[tuple[str, ...]] = batch.targets
        rows = self._vocabulary().tokens([caption for own in captions for caption in own])
        keys = np.array([_key(row) for row in rows], np.int64)
        firsts = np.cumsum([0, *(len(own) for own in captions[:-1])])
        own = np.repeat(keys[firsts][:, None], max(map(len, captions)), axis=1)
        for place, (first, several) in enumerate(zip(firsts, captions, strict=True)):
            own[place, : len(several)] = keys[first : first + len(several)]
        device = batch.images.device
        tokens = torch.from_numpy(cut_rows(rows[firsts])).to(device)
        pairs = Pairs(torch.from_numpy(keys[firsts]).to(device), torch.from_numpy(own).to(device))
        return replace(batch, inputs={**batch.inputs, "tokens": tokens}, targets=pairs)

    def training_loss(
        self, network: nn.Module, batch: Batch[Any], rng: np.random.Generator, progress: float
    ) -> Losses:
        """Return the contrastive loss of the images of this process against the captions of all, and vice versa."""
        ready = self.prepare(batch, rng, progress)
        return self.loss(network(ready.inputs), ready.targets)

    def loss(self, output: Output, targets: Pairs) -> Losses:
        """Return the loss of the settings, "softmax" or "sigmoid"."""
        kind = self.settings.loss
        return Losses({kind: (softmax_loss if kind == "softmax" else sigmoid_loss)(output, targets)})

    # Answer

    def answer(self, network: nn.Module, batch: Batch[Any], ask: Ask) -> Output:
        """Return the unit vector of each image (b, e), and for images with captions also theirs: `text` (b, c, e).

        Images with fewer captions than others have zeros in place of the missing ones.
        """
        output: Output = network(batch.inputs)
        head = head_of(network) or self._head
        if not batch.targets or head is None:
            return output
        captions: Sequence[tuple[str, ...]] = batch.targets
        flat = encoded(head, self._vocabulary(), [caption for own in captions for caption in own])
        text = flat.new_zeros(len(captions), max(map(len, captions)), flat.shape[1])
        for place, part in enumerate(torch.split(flat, [len(own) for own in captions])):
            text[place, : len(part)] = part
        return {**output, "text": text, "factor": head.factor().detach().expand(len(captions))}

    def decode(self, output: Output, at: Sequence[Geometry], ask: Ask) -> list[Captioned]:
        """Return the known texts that are nearest to each image."""
        if self.known is None:
            return [Captioned((), ()) for _ in at]
        cosines = output["image"].detach().float().cpu().numpy() @ self.known.vectors.T
        predictions = []
        for row in cosines:
            best = np.argsort(-row, kind="stable")[: ask.top].tolist()
            texts = tuple(self.known.texts[place] for place in best)
            vector = tuple(self.known.vectors[best[0]].tolist())
            predictions.append(Captioned(texts, tuple(row[best].tolist()), texts[0], vector))
        return predictions

    def choices(self, prediction: Captioned) -> Sequence[str]:
        """Return the nearest known texts; `focus` takes any other text, too."""
        if prediction.text and prediction.text not in prediction.captions:
            return (prediction.text, *prediction.captions)
        return prediction.captions

    def focus(self, prediction: Captioned, choice: str) -> Captioned:
        """Return the prediction whose score explains any text.

        Raises:
            SettingError: the text is empty, or the vocabulary has no words in its script.
        """
        if not choice.strip():
            raise SettingError('An explanation needs a text, such as --of "a red bus".')
        if warning := self._vocabulary().warning(choice):
            raise SettingError(f"{choice!r} cannot be explained. {warning}")
        return replace(prediction, text=choice, vector=tuple(self.vectors([choice])[0].tolist()))

    def score(self, output: Output, prediction: Captioned) -> Tensor:
        """Return the cosine of each image and the text of the prediction: (b,)."""
        if not prediction.vector:
            raise SettingError('This model knows no captions. Name a text to explain: --of "a red bus".')
        image = output["image"].float()
        return image @ torch.tensor(prediction.vector, device=image.device)

    def render(self, image: Image, prediction: Captioned) -> Image:
        """Return the image above its nearest captions, with bars as long as their cosines."""
        return plots.label_bars(image, prediction.top()[:SHOWN], COSINE)

    def glance(self, image: Image, output: Output, geometry: Geometry, truth: tuple[str, ...]) -> Image:
        """Return the image above its own captions, with bars as long as their cosines at present."""
        cosines = (output["text"][0] @ output["image"][0]).tolist()
        small = image.copy()
        small.thumbnail((GLANCE, GLANCE))
        return plots.label_bars(small, [*zip(truth, cosines, strict=False)][:SHOWN], COSINE)

    # Proof

    def fingerprint(self, output: Output) -> Tensor:
        """Return the unit vectors of the images: (b, e)."""
        return within(output["image"].float())

    def agree(self, one: Output, other: Output, tolerance: float = 0.0) -> Tensor:
        """Return where the same known text is nearest; without known texts, where the vectors are the same."""
        first, second = one["image"].float(), other["image"].float()
        if self.known is None:
            return (first - second).abs().amax(1) <= max(SAME, tolerance)
        known = torch.from_numpy(self.known.vectors).to(first.device)
        cosines, others = first @ known.T, second @ known.T
        nearest = others.argmax(1, keepdim=True)
        return (cosines.amax(1, keepdim=True) - cosines.gather(1, nearest)).squeeze(1) <= tolerance

    # Evaluation

    def evaluation(self) -> RetrievalEvaluation:
        return RetrievalEvaluation(None if self._head is None else self.vectors)


def _key(tokens: NDArray[np.int64]) -> int:
    """Return a number of 63 bits for a row of tokens: equal texts have equal numbers."""
    return int.from_bytes(blake2b(tokens.tobytes(), digest_size=8).digest(), "little") >> 1
