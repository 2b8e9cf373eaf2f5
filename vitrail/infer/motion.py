"""How a box moves: a Kalman filter with constant velocity, as in ByteTrack and DeepSORT.

The state is the centre, the aspect ratio (width / height), the height, and the velocity of each, in pixels a frame.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

POSITION, VELOCITY = 1 / 20, 1 / 160
"""Standard deviations of a position and of a velocity, in heights of the box (arXiv:1703.07402, code)."""

ASPECT, ASPECT_SPEED, ASPECT_SEEN = 1e-2, 1e-5, 1e-1
"""Standard deviations of the aspect ratio: its change, that of its velocity, and of its measurement."""


class Motion(NamedTuple):
    """A box on its way: mean (8,) and covariance (8, 8) of its state."""

    mean: Array
    covariance: Array

    def box(self) -> Array:
        """Return the expected box (left, top, right, bottom)."""
        x, y, aspect, height = self.mean[:4]
        wide = aspect * height
        return np.array([x - wide / 2, y - height / 2, x + wide / 2, y + height / 2])


def start(box: Array) -> Motion:
    """Return the motion of a box (left, top, right, bottom) that was seen once: it stands still, with much doubt."""
    seen = _measured(box)
    height = seen[3]
    deviations = [2 * POSITION * height] * 2 + [ASPECT, 2 * POSITION * height]
    deviations += [10 * VELOCITY * height] * 2 + [ASPECT_SPEED, 10 * VELOCITY * height]
    return Motion(np.concatenate([seen, np.zeros(4)]), np.diag(np.square(deviations)))


def ahead(motion: Motion, frames: float) -> Motion:
    """Return the motion after so many frames, which need not be whole: a clip may have a variable frame rate."""
    height = motion.mean[3]
    step = np.eye(8) + frames * np.eye(8, k=4)
    deviations = [POSITION * height] * 2 + [ASPECT, POSITION * height]
    deviations += [VELOCITY * height] * 2 + [ASPECT_SPEED, VELOCITY * height]
    noise = frames * np.diag(np.square(deviations))
    return Motion(step @ motion.mean, step @ motion.covariance @ step.T + noise)


def without_growth(motion: Motion) -> Motion:
    """Return the motion with a steady height: one that is not seen would grow or shrink without end."""
    mean = motion.mean.copy()
    mean[7] = 0.0
    return motion._replace(mean=mean)


def corrected(motion: Motion, box: Array) -> Motion:
    """Return the motion after a box (left, top, right, bottom) was measured."""
    height = motion.mean[3]
    noise = np.diag(np.square([POSITION * height, POSITION * height, ASPECT_SEEN, POSITION * height]))
    expected = motion.covariance[:4, :4] + noise
    gain: Array = np.linalg.solve(expected, motion.covariance[:4]).T
    mean = motion.mean + gain @ (_measured(box) - motion.mean[:4])
    return Motion(mean, motion.covariance - gain @ expected @ gain.T)


def _measured(box: Any) -> Array:
    left, top, right, bottom = (float(one) for one in box)
    height = max(bottom - top, 1e-6)
    return np.array([(left + right) / 2, (top + bottom) / 2, (right - left) / height, height])
