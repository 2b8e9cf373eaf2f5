"""Says in words what was measured."""

from __future__ import annotations

from vitrail.evaluate.labels import LabelScores
from vitrail.evaluate.scores import Scores
from vitrail.metrics.calibration import Calibration

NEVER_SEEN = "pictures it never saw"


def verdict(scores: Scores, calibration: Calibration | None = None, what: str = NEVER_SEEN) -> str:
    """Say in one sentence how good a model is; `what` names the pictures."""
    parts = [f"{_share(scores.accuracy.value)} right, {_span(scores)}, on {len(scores.judged):,} {what}"]
    if scores.without_twins:
        parts.append(f"{scores.without_twins} without those that have a twin in training")
    weak = scores.weakest()
    if weak is not None and weak[1]["value"] < 1.0:
        label, row = weak
        parts.append(f"weakest: {label}, {_share(row['value'])}, mostly taken for {row['taken_for']}")
    if calibration is not None:
        parts.append(calibration.words())
    return "; ".join(parts) + "."


def verdict_of_labels(scores: LabelScores, calibration: Calibration, what: str = NEVER_SEEN) -> str:
    """Say in one sentence how good a multi-label model is."""
    means = scores.classwise.means
    mean = means["map"]
    span = f", {100 * mean.low:.1f} – {100 * mean.high:.1f}" if mean.low is not None else ""
    said = f"mean average precision {_share(mean.value)}{span}, on {len(scores.judged):,} {what}"
    parts = [said, f"exactly the right labels on {scores.accuracy}"]
    if scores.without_twins:
        parts.append(f"{scores.without_twins} without those that have a twin in training")
    seen = {label: row for label, row in scores.per_class().items() if row["pictures"]}
    if seen:
        weak = min(seen, key=lambda label: seen[label]["f1"]["value"])
        parts.append(f"weakest: {weak}, F1 {_share(seen[weak]['f1']['value'])}")
    return "; ".join([*parts, calibration.words()]) + "."


def plain_verdict(found: dict[str, float], pictures: int) -> str:
    """Say the scores of a task that has no classes to tell about."""
    said = ", ".join(f"{name} {value:.3g}" for name, value in found.items())
    return f"{said} on {pictures:,} {NEVER_SEEN}."


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _span(scores: Scores) -> str:
    return f"{100 * scores.accuracy.low:.1f} – {100 * scores.accuracy.high:.1f}"
