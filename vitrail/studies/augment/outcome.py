"""What the comparison with and without generated images found, as figures and sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.metrics.paired_difference import Difference, Verdict, over_seeds, verdict
from vitrail.studies.augment.memorisation import Memorisation
from vitrail.studies.compare.outcome import SharedImages, Side, scored

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """Scores of the same real test images (seeds, n) with and without the generated images of the class `name`."""

    name: str
    tested: SharedImages
    with_made: Array
    without: Array
    score: str

    @property
    def difference(self) -> Difference:
        """The mean gain over all test images, paired, over seeds and groups of images."""
        return over_seeds(self.with_made - self.without, self.tested.units)

    @property
    def verdict(self) -> Verdict:
        """What may be said of the gain."""
        return verdict(self.difference)

    @property
    def rises(self) -> bool:
        """Whether the whole interval of the gain is above 0."""
        return self.verdict.low > 0

    def part(self, *, of_class: bool) -> Outcome | None:
        """Return the same for the test images of the class, or of all others; None where there are none."""
        places = np.flatnonzero([(self.name in classes) is of_class for classes in self.tested.classes])
        if not len(places):
            return None
        whole = self.tested
        chosen = SharedImages(
            tuple(whole.ids[i] for i in places),
            tuple(whole.classes[i] for i in places),
            tuple(whole.groups[i] for i in places),
            whole.folds[places],
            whole.trained,
        )
        return Outcome(self.name, chosen, self.with_made[:, places], self.without[:, places], self.score)

    def gain(self) -> str:
        """Return the gain with its interval, in points; no gain is larger than 100."""
        low, high = (min(1.0, max(-1.0, end)) for end in self.difference.interval())
        return f"{100 * self.difference.value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"

    def sides(self) -> dict[str, dict[str, Any]]:
        """Return the scores of both kinds with their intervals."""
        both = (("without", self.without), ("with", self.with_made))
        return {name: scored(Side(name, values), self.tested) for name, values in both}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; shares are in parts of one."""
        low, high = self.difference.interval()
        return {
            "images": len(self.tested.ids),
            **self.sides(),
            "difference": round(self.difference.value, 6),
            "low": round(low, 6),
            "high": round(high, 6),
            "p": round(self.difference.p, 6),
            "seeds": [
                {"without": round(float(one), 6), "with": round(float(other), 6)}
                for one, other in zip(self.without.mean(1), self.with_made.mean(1), strict=True)
            ],
        }


def sentences(outcome: Outcome | None, check: Memorisation, used: int) -> list[str]:
    """Return the decision and its reasons, the decision first; `used` images were learned from."""
    if outcome is None:
        return ["Refused: every generated image is a copy of a real one.", check.sentence()]
    admitted = outcome.rises and check.passed
    found = outcome.verdict
    if admitted:
        head = f"Admitted: with {used:,} generated images of {outcome.name}, real {outcome.score} rises."
    elif not check.passed and outcome.rises:
        head = f"Refused: real {outcome.score} rises, but the generator gives back its training images."
    elif outcome.verdict.high < 0:
        head = f"Refused: with {used:,} generated images of {outcome.name}, real {outcome.score} falls."
    elif found.kind == "same":
        head = f"Refused: {used:,} generated images of {outcome.name} make no difference that matters."
    else:
        head = f"Refused: these real test images cannot show that {outcome.score} rises."
    gain = f"Gain on {len(outcome.tested.ids):,} real test images: {outcome.gain()}, paired, 95 % interval"
    lines = [head, f"{gain}, {found.runs} trainings each."]
    for of_class, called in ((True, outcome.name), (False, "all other classes")):
        if (part := outcome.part(of_class=of_class)) is not None:
            lines.append(f"Gain on the {len(part.tested.ids):,} of {called}: {part.gain()}.")
    if not admitted and found.kind == "unknown" and found.more and outcome.difference.value > 0:
        lines.append(f"About {found.more:,} more test images would tell, if the gain stays as it is.")
    return [*lines, check.sentence()]
