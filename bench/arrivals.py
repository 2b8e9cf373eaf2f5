"""Times at which requests arrive, in seconds from 0, in order; the same seed gives the same times.

A shorter load of the same rate and seed is the beginning of the longer one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]


def poisson(rate: float, seconds: float, seed: int) -> Times:
    """Return arrivals that know nothing of each other, `rate` a second."""
    rng = np.random.default_rng(seed)
    return _until(seconds, rate, lambda count: rng.exponential(1 / rate, count))


def gamma(rate: float, seconds: float, cv2: float, seed: int) -> Times:
    """Return arrivals with gamma-distributed gaps, `rate` a second; `cv2`: their squared coefficient of variation.

    1 is Poisson; the larger, the more they come in bursts.
    """
    rng = np.random.default_rng(seed)
    return _until(seconds, rate, lambda count: rng.gamma(1 / cv2, cv2 / rate, count))


def step(low: float, high: float, seconds: float, seed: int) -> Times:
    """Return Poisson arrivals at `low` a second, then `high`, then `low` again, a third of the time each."""
    third = seconds / 3
    parts = [poisson(rate, third, seed + number) for number, rate in enumerate((low, high, low))]
    return np.concatenate([part + number * third for number, part in enumerate(parts)])


def _until(seconds: float, rate: float, gaps: Callable[[int], Times]) -> Times:
    times = np.zeros(0)
    while not len(times) or times[-1] < seconds:
        more = np.cumsum(gaps(max(16, int(rate * seconds))))
        times = np.concatenate([times, more + (times[-1] if len(times) else 0.0)])
    return times[times < seconds]
