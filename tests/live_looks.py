"""What the attention of a live picture is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitrail.explainers.attention_maps import looks_of
from vitrail.explainers.explanation import ImageExplainer
from vitrail.explainers.live_attention import LiveAttention
from vitrail.infer.predictor import Predictor


def same_as_the_last_layer(model: Predictor, picture: Path) -> ImageExplainer:
    """Compare two frames with the model's answer and with its last layer; return what explained the picture."""
    live, look = LiveAttention(model), ImageExplainer(model, picture)
    image = model.decoded(picture)
    last = looks_of(look.subject(), look.ready.pixels[None])[-1].mean(1)[0]
    for _ in range(2):  # the second frame records the last layer only
        glance = live(image)
        assert glance.prediction.to_dict() == model.predict([image])[0].to_dict()
        np.testing.assert_allclose(glance.looked, last, atol=1e-6)
    return look
