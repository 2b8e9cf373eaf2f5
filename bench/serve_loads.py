"""The loads of `bench.serve`, in terms of what a server can do with its full point and with its cheapest one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bench.arrivals import Times, gamma, poisson, step

UP_TO = 0.9
"""Up to this share of the cheapest point's capacity a server with a dial must keep its promise."""


@dataclass(frozen=True)
class Setup:
    """What was measured before the loads: milliseconds, requests a second, and the score of every point."""

    machine: str
    run: str
    promise: float
    single: float
    full: str
    cheapest: str
    full_rate: float
    cheapest_rate: float
    scores: Mapping[str, float]
    front: tuple[str, ...]
    seconds: float

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Setup:
        return cls(**{**row, "front": tuple(row["front"])})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def width(self) -> float:
        """How far the accuracies of the front are apart: no choice of points can gain more."""
        values = [self.scores[point] for point in self.front]
        return max(values) - min(values)


@dataclass(frozen=True)
class Load:
    """A load: `arrivals(seconds, seed)`, and the highest rate that it keeps for seconds (`peak`; None: in bursts).

    A load that changes with time (`shaped`) is stretched to its seconds; of others a shorter one is the beginning.
    """

    title: str
    peak: float | None
    arrivals: Callable[[float, int], Times]
    shaped: bool = False
    falls: bool = False


def loads(setup: Setup) -> dict[str, Load]:
    """Return all loads by name."""
    full, most = setup.full_rate, UP_TO * setup.cheapest_rate

    def steady(rate: float, what: str, falls: bool = False) -> Load:
        return Load(
            f"Poisson, {rate:.0f} requests a second, {what}",
            None if falls else rate,
            lambda seconds, seed: poisson(rate, seconds, seed),
            falls,
            falls,
        )

    return {
        "poisson08": steady(0.8 * full, "0.8 × the capacity of the full point"),
        "poisson15": steady(1.5 * full, "1.5 × the capacity of the full point"),
        "cheapest09": steady(most, f"{UP_TO} × the capacity of the cheapest point"),
        "gamma8": Load(
            f"Gamma arrivals with CV² 8, {full:.0f} requests a second, 1 × the capacity of the full point",
            None,
            lambda seconds, seed: gamma(full, seconds, 8, seed),
        ),
        "step": Load(
            f"A step: {0.5 * full:.0f}, {1.5 * full:.0f} and again {0.5 * full:.0f} requests a second (0.5 and 1.5 × "
            "the capacity of the full point), Poisson",
            1.5 * full,
            lambda seconds, seed: step(0.5 * full, 1.5 * full, seconds, seed),
            shaped=True,
        ),
        "falls": steady(
            0.8 * full, "0.8 × the capacity of the full point; another program runs on the server's core in the middle "
            "half of the time", falls=True,
        ),
    }  # fmt: skip
