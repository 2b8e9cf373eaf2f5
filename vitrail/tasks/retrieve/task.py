"""Retrieval: images and captions as vectors of one space (CLIP, Radford et al. 2021, arXiv:2103.00020)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail import plots
from vitrail.core.errors import RunError, SettingError
from vitrail.data.batch import Batch, Geometry
from vitrail.data.truth import Truth
from vitrail.data.vocabulary import Vocabulary, clip_vocabulary, learnt_vocabulary, read_vocabulary
from vitrail.layers.contrastive_head import ContrastiveHead
from vitrail.layers.heads import Output
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.base import Ask, Losses, Task, within
from vitrail.tasks.result import Exports
from vitrail.tasks.retrieve.evaluation import RetrievalEvaluation
from vitrail.tasks.retrieve.head import build_head
from vitrail.tasks.retrieve.loss import Pairs, sigmoid_loss, softmax_loss
from vitrail.tasks.retrieve.prediction import Captioned, KnownTexts, Vectors
from vitrail.tasks.retrieve.sentence_encoder import load_sentence_encoder, sentence_config
from vitrail.tasks.retrieve.settings import CLIP, OWN, RetrieveSettings
from vitrail.tasks.retrieve.targets import CaptionTargets, unread_captions

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.data.manifest import Row

STEP = 8
"""Token rows of a batch are cut to the longest text, rounded up to a multiple of this."""

TEXTS = 256
"""Texts that are encoded at a time."""

SHOWN = 3
"""Captions that are drawn below an image."""

COSINE = ".2f"
"""How cosines are written on drawings."""

SAME = 1e-3
"""Largest difference of a value of two image vectors that agree, if the model knows no captions."""


class Retrieve(CaptionTargets, Task[tuple[str, ...], Captioned]):
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

    def __init__(self, truth: Truth | Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(truth, settings)
        self.vocabulary: Vocabulary | None = None
        self.known: KnownTexts | None = None
        self.sentence: dict[str, Any] | None = None
        self._sentence_folder = ""  # whose tensors a new head takes
        self._head: ContrastiveHead | None = None

    # Vocabulary

    def learn_vocabulary(self, rows: Sequence[Row]) -> list[str]:
        """Make the vocabulary of the settings, from the captions of the training rows if it is to be learnt.

        Return sentences about captions that it cuts or cannot read.

        Raises:
            DataError: a vocabulary file cannot be read.
            MissingExtraError: a package is missing.
        """
        own: RetrieveSettings = self.settings
        if own.text_tower and own.vocabulary != OWN:
            raise SettingError(
                f"--set vocabulary={own.vocabulary}: the tower of --text-tower has its own vocabulary. Leave it out."
            )
        if own.text_tower:
            self.sentence, self._sentence_folder = sentence_config(own.text_tower), own.text_tower
            context = min(own.context, self.sentence["max_position_embeddings"])
            self.vocabulary = read_vocabulary(Path(own.text_tower), context)
        elif own.vocabulary == OWN:
            captions = [caption for row in rows for caption in self.read(row, Path())]
            self.vocabulary = learnt_vocabulary(captions, own.vocabulary_size, own.context)
        elif own.vocabulary == CLIP:
            self.vocabulary = clip_vocabulary(own.context)
        else:
            self.vocabulary = read_vocabulary(Path(own.vocabulary), own.context)
        return unread_captions(rows, self.vocabulary)

    def stored(self) -> dict[str, Any]:
        """Return what a model file holds besides the settings: the vocabulary, and the known texts if there are any."""
        vocabulary = {} if self.vocabulary is None else {"vocabulary": asdict(self.vocabulary)}
        sentence = {} if self.sentence is None else {"sentence": self.sentence}
        return {**vocabulary, **sentence, **({} if self.known is None else {"known": self.known.to_dict()})}

    def take_stored(self, values: Mapping[str, Any]) -> None:
        """Set what `stored` returned."""
        if values.get("vocabulary") is not None:
            self.vocabulary = Vocabulary(**values["vocabulary"])
        if values.get("sentence") is not None:
            self.sentence = dict(values["sentence"])
        if values.get("known") is not None:
            self.known = KnownTexts.from_dict(values["known"])

    def choose_texts(self, texts: Sequence[str]) -> None:
        """Choose predictions among these texts from now on."""
        self.known = KnownTexts(tuple(texts), self.vectors(texts))

    # Network

    def head(self, spec: FeatureSpec) -> ContrastiveHead:
        """Return the contrastive head with a text tower for the tokens of the vocabulary."""
        head = build_head(spec, self.settings, self._vocabulary(), self.sentence)
        if self._sentence_folder:
            load_sentence_encoder(head.tower, self._sentence_folder)
        return head

    def use_network(self, network: nn.Module) -> None:
        """Encode texts with the text tower of this network, which opening a model file passes."""
        self._head = _head_of(network)

    def _vocabulary(self) -> Vocabulary:
        if self.vocabulary is None:
            raise SettingError(
                "This task has no vocabulary yet: a training makes it from its captions, and a model file holds it. "
                "Open a trained model."
            )
        return self.vocabulary

    def token_rows(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the tokens of texts, int64 (n, context)."""
        return self._vocabulary().tokens(texts)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Return the unit vectors of texts: float32 (n, e).

        Raises:
            RunError: no model file with a text tower is open, as for an exported graph.
        """
        if self._head is None:
            raise RunError(
                "This file holds the image tower only, so it encodes no texts. Name the run or its model.safetensors."
            )
        return _encoded(self._head, self._vocabulary(), texts).cpu().numpy()

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
        tokens = torch.from_numpy(_cut(rows[firsts])).to(device)
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
        head = _head_of(network) or self._head
        if not batch.targets or head is None:
            return output
        captions: Sequence[tuple[str, ...]] = batch.targets
        flat = _encoded(head, self._vocabulary(), [caption for own in captions for caption in own])
        text = flat.new_zeros(len(captions), max(map(len, captions)), flat.shape[1])
        for place, part in enumerate(torch.split(flat, [len(own) for own in captions])):
            text[place, : len(part)] = part
        return {**output, "text": text, "factor": head.factor().detach().expand(len(captions))}

    def decode(self, output: Output, at: Sequence[Geometry], ask: Ask) -> list[Captioned]:
        """Return the known texts that are nearest to each image."""
        if self.known is None:
            return [Captioned((), ()) for _ in at]
        cosines = output["image"].float().cpu().numpy() @ self.known.vectors.T
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


GLANCE = 320
"""Pixels of the long side of an image that is drawn during training."""


def most_common(captions: Sequence[str], most: int) -> tuple[str, ...]:
    """Return the different captions, at most `most`: the most frequent first, then those that come first."""
    return tuple(caption for caption, _ in Counter(captions).most_common(most))


def _head_of(network: nn.Module) -> ContrastiveHead | None:
    head = getattr(network, "head", None)
    return head if isinstance(head, ContrastiveHead) else None


@torch.no_grad()
def _encoded(head: ContrastiveHead, vocabulary: Vocabulary, texts: Sequence[str]) -> Tensor:
    """Return the unit vectors of texts, on the device of the head: (n, e)."""
    device = head.scale.device
    parts = [
        head.texts(torch.from_numpy(_cut(vocabulary.tokens(texts[start : start + TEXTS]))).to(device))
        for start in range(0, len(texts), TEXTS)
    ]
    return torch.cat(parts).float() if parts else torch.zeros(0, 0, device=device)


def _cut(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return rows of tokens without the zeros that all of them end with: what is left costs much less."""
    longest = int((rows != 0).any(0).nonzero()[0].max(initial=0)) + 1
    return rows[:, : min(rows.shape[1], -(-longest // STEP) * STEP)]


def _key(tokens: NDArray[np.int64]) -> int:
    """Return a number of 63 bits for a row of tokens: equal texts have equal numbers."""
    return int.from_bytes(blake2b(tokens.tobytes(), digest_size=8).digest(), "little") >> 1
