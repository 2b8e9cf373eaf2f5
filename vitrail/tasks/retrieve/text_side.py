"""The texts of a retrieval: the vocabulary, the tower that encodes them, and those that predictions are chosen from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail.core.errors import RunError, SettingError
from vitrail.data.vocabulary import Vocabulary, clip_vocabulary, learnt_vocabulary, read_vocabulary
from vitrail.layers.contrastive_head import ContrastiveHead
from vitrail.tasks.retrieve.prediction import KnownTexts, Vectors
from vitrail.tasks.retrieve.sentence_encoder import sentence_config
from vitrail.tasks.retrieve.settings import CLIP, OWN, RetrieveSettings
from vitrail.tasks.retrieve.targets import unread_captions

if TYPE_CHECKING:
    from vitrail.data.manifest import Row

STEP = 8
"""Token rows of a batch are cut to the longest text, rounded up to a multiple of this."""

TEXTS = 256
"""Texts that are encoded at a time."""

DRIFT = 1e-3
"""Largest difference of a value of a text's vector from the one that the model file holds; a GPU may round so much."""


class TextSide(ABC):
    """What a task of images and captions knows of texts, beside its settings."""

    settings: Any
    vocabulary: Vocabulary | None = None
    known: KnownTexts | None = None
    sentence: dict[str, Any] | None = None
    _sentence_folder = ""  # whose tensors a new head takes
    _head: ContrastiveHead | None = None
    _proven = False  # whether the text tower was compared with the known texts

    @abstractmethod
    def read(self, row: Row, root: Path) -> tuple[str, ...]:
        """Return the captions of a row."""

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

    def use_network(self, network: nn.Module) -> None:
        """Encode texts with the text tower of this network, which opening a model file passes."""
        self._head = head_of(network)

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
            RunError: no model file with a text tower is open, as for an exported graph, or it is damaged.
        """
        if self._head is None:
            raise RunError(
                "This file holds the image tower only, so it encodes no texts. Name the run or its model.safetensors."
            )
        if self.known is not None and not self._proven:
            self._prove(self._head, self.known)
        return encoded(self._head, self._vocabulary(), texts).cpu().numpy()

    def _prove(self, head: ContrastiveHead, known: KnownTexts) -> None:
        """Compare the vector of a known text with the stored one: the proof of the file is about images only."""
        found = encoded(head, self._vocabulary(), known.texts[:1]).cpu().numpy()
        apart = float(np.abs(found - known.vectors[:1]).max())
        if not apart <= DRIFT:
            raise RunError(
                f"The text tower does not encode {known.texts[0]!r} as it did after training: a number differs by "
                f"{apart:.2g} (allowed: {DRIFT:g}). The model file is damaged. Copy it again."
            )
        self._proven = True


def most_common(captions: Sequence[str], most: int) -> tuple[str, ...]:
    """Return the different captions, at most `most`: the most frequent first, then those that come first."""
    return tuple(caption for caption, _ in Counter(captions).most_common(most))


def head_of(network: nn.Module) -> ContrastiveHead | None:
    """Return the contrastive head of a network, or None."""
    head = getattr(network, "head", None)
    return head if isinstance(head, ContrastiveHead) else None


@torch.no_grad()
def encoded(head: ContrastiveHead, vocabulary: Vocabulary, texts: Sequence[str]) -> Tensor:
    """Return the unit vectors of texts, on the device of the head: (n, e)."""
    device = head.scale.device
    parts = [
        head.texts(torch.from_numpy(cut_rows(vocabulary.tokens(texts[start : start + TEXTS]))).to(device))
        for start in range(0, len(texts), TEXTS)
    ]
    return torch.cat(parts).float() if parts else torch.zeros(0, 0, device=device)


def cut_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return rows of tokens without the zeros that all of them end with: what is left costs much less."""
    longest = int((rows != 0).any(0).nonzero()[0].max(initial=0)) + 1
    return rows[:, : min(rows.shape[1], -(-longest // STEP) * STEP)]
