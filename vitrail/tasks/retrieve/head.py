"""The head of retrieval: the contrastive head with the text tower of the settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vitrail.core.errors import SettingError
from vitrail.data.vocabulary import Vocabulary
from vitrail.layers.contrastive_head import ContrastiveHead
from vitrail.layers.sentence_tower import SentenceTower
from vitrail.layers.text_tower import TextTower
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.retrieve.settings import RetrieveSettings

SIGMOID_SCALE, SIGMOID_BIAS = math.log(10), -10.0
"""Where the sigmoid loss begins (arXiv:2303.15343, algorithm 1): nearly every pair of a batch is a wrong one."""

SOFTMAX_SCALE = math.log(1 / 0.07)
"""Where the softmax loss begins (arXiv:2103.00020, §2.5)."""


HIDDEN = 512
"""Hidden values of the projections beside a sentence encoder."""


def build_head(
    spec: FeatureSpec,
    settings: RetrieveSettings,
    vocabulary: Vocabulary,
    sentence: Mapping[str, Any] | None = None,
) -> ContrastiveHead:
    """Return the head for any encoder, with a new text tower for the tokens of this vocabulary.

    `sentence` is what `sentence_config` returns of a sentence encoder, which then is the text tower.

    Raises:
        SettingError: the sizes of the text tower do not fit together.
    """
    tower = _sentence_tower(settings, sentence) if sentence else _text_tower(settings, vocabulary)
    sigmoid = settings.loss == "sigmoid"
    head = ContrastiveHead(
        spec,
        settings.embed,
        tower,
        pool=settings.pool,
        hidden=(HIDDEN if sentence else 0) if settings.hidden is None else settings.hidden,
        scale=SIGMOID_SCALE if sigmoid else SOFTMAX_SCALE,
        bias=SIGMOID_BIAS if sigmoid else 0.0,
    )
    head.bias.requires_grad_(sigmoid)  # several processes wait for the gradient of every weight
    return head


def _text_tower(settings: RetrieveSettings, vocabulary: Vocabulary) -> TextTower:
    width, heads = settings.text_width, settings.text_heads
    if width % heads:
        raise SettingError(f"A text tower of width {width} cannot have {heads} heads: choose a divisor.")
    return TextTower(
        width, settings.text_depth, heads, vocabulary.context, vocabulary.size, gelu=settings.gelu
    )


def _sentence_tower(settings: RetrieveSettings, sentence: Mapping[str, Any]) -> SentenceTower:
    sizes = {key: value for key, value in sentence.items() if key != "pool"}
    blocks = sizes["num_hidden_layers"]
    if settings.text_tuned > blocks:
        raise SettingError(
            f"--set text_tuned={settings.text_tuned}: the text tower has {blocks} blocks only."
        )
    return SentenceTower(sizes, pool=sentence["pool"], tuned=settings.text_tuned)
