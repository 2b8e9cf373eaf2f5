"""Options of a measurement of robustness. No heavy import: help reads this module."""

from __future__ import annotations

from dataclasses import dataclass

from vitrail.core.errors import SettingError, UsageError

LARGEST = 255.0
"""The largest epsilon, in grey values of 255: a change that makes any pixel black or white."""


@dataclass(frozen=True, kw_only=True)
class RobustnessOptions:
    """How much is measured with --robustness.

    Parameters
    ----------
    robustness
        measure how the answers hold under corruptions, missing and shuffled patches, and attacks
    sample
        images that are drawn for it, at most
    attacked
        how many of these are attacked, the most expensive part
    epsilons
        largest changes of a pixel by attacks, in grey values of 255
    """

    robustness: bool = False
    sample: int = 300
    attacked: int = 100
    epsilons: str = "0.5,1,2,4,8"

    def refuse_idle(self) -> None:
        """Raise a UsageError for options that change nothing, a SettingError for values that mean nothing."""
        if not self.robustness:
            plain = RobustnessOptions()
            given = [
                f"--{name}"
                for name in ("sample", "attacked", "epsilons")
                if getattr(self, name) != getattr(plain, name)
            ]
            if given:
                raise UsageError(f"{' and '.join(given)} changes nothing without --robustness. Add it.")
            return
        self.strengths()
        if self.sample < 1 or self.attacked < 0:
            raise SettingError("--sample takes 1 image or more, --attacked 0 or more (0: no attacks).")

    def strengths(self) -> tuple[float, ...]:
        """Return the epsilons as numbers, the smallest first; SettingError if they are no numbers above 0."""
        try:
            found = sorted({float(word) for word in self.epsilons.split(",")})
        except ValueError:
            found = [0.0]
        if not all(0 < epsilon <= LARGEST for epsilon in found):
            raise SettingError(
                f"--epsilons {self.epsilons}: give grey values above 0 and up to 255, such as 0.5,1,2,4,8."
            )
        return tuple(found)


DEFAULTS = RobustnessOptions()
