"""The head of retrieval: the contrastive head with the text tower of the settings."""

from __future__ import annotations

import math

from vitrail.core.errors import SettingError
from vitrail.data.vocabulary import Vocabulary
from vitrail.layers.contrastive_head import ContrastiveHead
from vitrail.layers.text_tower import TextTower
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.retrieve.settings import RetrieveSettings

SIGMOID_SCALE, SIGMOID_BIAS = math.log(10), -10.0
"""Where the sigmoid loss begins (arXiv:2303.15343, algorithm 1): nearly every pair of a batch is a wrong one."""

SOFTMAX_SCALE = math.log(1 / 0.07)
"""Where the softmax loss begins (arXiv:2103.00020, §2.5)."""


def build_head(spec: FeatureSpec, settings: RetrieveSettings, vocabulary: Vocabulary) -> ContrastiveHead:
    """Return the head for any encoder, with a new text tower for the tokens of this vocabulary.

    Raises:
        SettingError: the sizes of the text tower do not fit together.
    """
    width, heads = settings.text_width, settings.text_heads
    if width % heads:
        raise SettingError(f"A text tower of width {width} cannot have {heads} heads: choose a divisor.")
    tower = TextTower(
        width, settings.text_depth, heads, vocabulary.context, vocabulary.size, gelu=settings.gelu
    )
    sigmoid = settings.loss == "sigmoid"
    head = ContrastiveHead(
        spec,
        settings.embed,
        tower,
        pool=settings.pool,
        scale=SIGMOID_SCALE if sigmoid else SOFTMAX_SCALE,
        bias=SIGMOID_BIAS if sigmoid else 0.0,
    )
    head.bias.requires_grad_(sigmoid)  # several processes wait for the gradient of every weight
    return head
