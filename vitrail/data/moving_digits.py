"""The built-in data set `moving_digits`: real scans of digits that move to the left or to the right.

Each scan moves by two pixels a frame across a square of 32 pixels whose opposite sides are joined, once in
each direction, from a place that is drawn. A clip that is played backwards is as likely a clip of the other
class: so neither a frame nor all frames without their order tell the class, and the digit does not either.
The same is true of any frames that are evenly spaced in time.
"""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import MissingExtraError

SIDE, FRAMES, SCANS, RATE = 32, 10, 1500, 10
DIRECTIONS = {"left": -2, "right": 2}
"""Class → pixels that it moves to the right in a frame."""

_SEED = 0


def write(root: Path) -> None:
    """Write 3,000 clips as `direction/v_direction_g0001_c01.mkv`; the clips of one scan are one group, `g0001`.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    from sklearn.datasets import load_digits  # the import takes half a second

    images = load_digits().images
    rng = np.random.default_rng(_SEED)
    for number, scan in enumerate(rng.permutation(len(images))[:SCANS], 1):
        digit = np.kron(np.round(images[scan] * (255 / 16)).astype(np.uint8), np.ones((2, 2), np.uint8))
        for name in DIRECTIONS:
            start = (int(rng.integers(SIDE)), int(rng.integers(SIDE)))
            file = root / name / f"v_{name}_g{number:04}_c01.mkv"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_video(frames_of(digit, start, name)))


def frames_of(digit: NDArray[np.uint8], start: tuple[int, int], direction: str) -> NDArray[np.uint8]:
    """Return the frames uint8 (t, row, col) of a digit that moves from the pixel `start` (to the right, down)."""
    square = np.zeros((SIDE, SIDE), np.uint8)
    square[: digit.shape[0], : digit.shape[1]] = digit
    right, down = start
    step = DIRECTIONS[direction]
    return np.stack([np.roll(square, (down, right + number * step), (0, 1)) for number in range(FRAMES)])


def _video(frames: NDArray[np.uint8]) -> bytes:
    """Return the frames as a lossless grey video; equal frames give equal bytes."""
    av = _pyav()
    written = BytesIO()
    with av.open(written, "w", format="matroska", options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream("ffv1", rate=RATE)
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "gray"
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(frames):
            shown = av.VideoFrame.from_ndarray(frame, format="gray")
            shown.pts, shown.time_base = number, Fraction(1, RATE)
            file.mux(stream.encode(shown))
        file.mux(stream.encode())
    return written.getvalue()


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError(
            "moving_digits are video files, which need PyAV to be written: pip install 'vitrail[video]'."
        ) from error
    return av
