"""The numbers of a load: how many answers were in time, how late they were, and which points gave them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

WARM = 1.0
"""Seconds of a closed loop that are not counted."""

BURST = 0.005
"""Answers of one batch arrive within so many seconds."""

REFUSED = frozenset({422, 429, 503})
"""422: even a free server would be too slow for the image."""


class Asked(NamedTuple):
    """One request: seconds since time 0 (`scheduled`, `sent`) and from the schedule to the answer (`latency`).

    `status` 0: no answer; `trouble` says why. `point` and `batch` are those of the answer.
    """

    scheduled: float
    sent: float
    latency: float
    status: int
    point: str = ""
    batch: int = 0
    trouble: str = ""


def capacity(found: Sequence[Asked]) -> dict[str, Any]:
    """Return answers a second of a closed loop and their latency, without its first second."""
    done = sorted((one.sent + one.latency, one.latency) for one in found if one.status == 200)
    done = [one for one in done if one[0] > WARM]
    later = [at for at, _ in done if at > done[0][0] + BURST]
    return {
        "rate": len(later) / (later[-1] - done[0][0]) if later else 0.0,
        "middle_ms": 1000 * float(np.median([latency for _, latency in done] or [np.nan])),
        "refused": sum(one.status in REFUSED for one in found),
        "mean_batch": float(np.mean([one.batch for one in found if one.batch] or [0])),
    }


def summary(found: Sequence[Asked], promise: float, scores: Mapping[str, float]) -> dict[str, Any]:
    """Return the numbers of a load; `promise` in milliseconds, `scores` of the points by name."""
    accepted = [one for one in found if one.status == 200]
    in_time = [one for one in accepted if 1000 * one.latency <= promise]
    late = [1000 * one.latency for one in accepted] or [float("nan")]
    known = [scores[one.point] for one in in_time if one.point in scores]
    refused = sum(one.status in REFUSED for one in found)
    lost = sum(one.status == 0 for one in found)
    return {
        "requests": len(found),
        "attainment": len(in_time) / max(1, len(found)),
        "accuracy": float(np.mean(known)) if known and len(known) == len(in_time) else None,
        **{f"p{share}_ms": float(np.percentile(late, share)) for share in (50, 95, 99)},
        "refused": refused / max(1, len(found)),
        "lost": lost,
        "failed": len(found) - len(accepted) - refused - lost,
        "mean_batch": float(np.mean([one.batch for one in accepted] or [0])),
        "points": dict(Counter(one.point for one in in_time).most_common()),
        "statuses": dict(Counter(one.status for one in found)),
        "troubles": dict(Counter(one.trouble for one in found if one.trouble).most_common(3)),
        "behind_ms": float(np.percentile([1000 * (one.sent - one.scheduled) for one in found] or [0], 99)),
    }


def scores_of(card: Mapping[str, Any]) -> dict[str, float]:
    """Return the score of every point that GET /card tells."""
    return {row["point"]: float(row["score"]) for row in card["points"] if row["score"] is not None}
