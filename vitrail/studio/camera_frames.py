"""What a model answers about a frame of a camera, as plain data for the page. No task is known here."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from typing import TYPE_CHECKING, Any

from vitrail.studio.answers import BARS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vitrail.explainers.live_attention import Glance, LiveAttention

SIDES = (224, 640)
"""Smallest and largest longest side of a frame, in pixels."""

MOST_BYTES = 4 << 20
"""Largest size of a frame in bytes."""


def answer_of(live: LiveAttention, data: bytes) -> dict[str, Any]:
    """Return the answer for a frame, an encoded image.

    `bars` are labels with their probability; a task without them gives `text`, and `drawn`, the frame as a JPEG in
    base64 with the answer on it. `unlike` and `novel` are the number of "none of these" and whether it is the answer.
    `looked` are the weights of attention. `side` is the longest side that frames should have.

    Raises:
        DataError: the frame cannot be read.
    """
    image = live.predictor.decoded(data)
    glance = live(image)
    low, high = SIDES
    found: dict[str, Any] = {
        "side": min(high, max(low, *live.predictor.preprocess.size)),
        "looked": _looked(glance),
    }
    top = getattr(glance.prediction, "top", None)
    if top is None:
        return {**found, "text": str(glance.prediction), "drawn": _drawn(live, image, glance)}
    unlike = getattr(glance.prediction, "unlike", None)
    novel = bool(getattr(glance.prediction, "none_of_these", None))
    return {**found, "bars": [[label, share] for label, share in top(BARS)], "unlike": unlike, "novel": novel}


def _looked(glance: Glance) -> dict[str, Any] | None:
    """Return weights as bytes in base64 (0: the median or less, 255: the largest), their grid, and what is under it."""
    if glance.looked is None:
        return None
    weights = glance.looked
    above = (weights - weights.median()).clamp(min=0)
    shares = (above / above.max().clamp(min=1e-12) * 255).round().byte().numpy()
    (top, left, bottom, right), (height, width) = glance.geometry.box, glance.geometry.original
    return {
        "rows": weights.shape[0],
        "cols": weights.shape[1],
        "data": b64encode(shares.tobytes()).decode(),
        "box": [top / height, left / width, bottom / height, right / width],
    }


def _drawn(live: LiveAttention, image: NDArray[Any], glance: Glance) -> str:
    from vitrail import plots

    shown = plots.of_array(live.predictor.preprocess.visible(image))
    buffer = BytesIO()
    live.predictor.task.render(shown, glance.prediction).convert("RGB").save(buffer, "JPEG", quality=80)
    return b64encode(buffer.getvalue()).decode()
