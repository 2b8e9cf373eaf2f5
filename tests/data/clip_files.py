"""Video files for tests, made by PyAV: every frame tells its number by its brightness."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = (48, 64)
"""Height and width."""

_AT_THE_START = {".mp4": {"movflags": "faststart"}}  # the list of frames stands before them

STEP = 4
"""Difference in brightness between one frame and the next."""


def numbered(count: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Return frames (count, height, width, 3), lighter from one to the next; their top left quarter is red."""
    frames = np.zeros((count, *size, 3), np.uint8)
    frames += (np.arange(count, dtype=np.uint8) * STEP % 200)[:, None, None, None]
    frames[:, : size[0] // 2, : size[1] // 2, 0] = 250
    return frames


def number_of(frame: NDArray[np.uint8]) -> int:
    """Return the number that a frame of `numbered` tells, of at most 50."""
    return round(float(frame[frame.shape[0] // 2 :, frame.shape[1] // 2 :].mean()) / STEP)


def film(
    path: Path,
    frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    *,
    rate: int = 25,
    stamps: Sequence[int] = (),
    rotation: int = 0,
    options: dict[str, str] | None = None,
    codec: str = "libx264",
) -> Path:
    """Write a video with a key frame every 10 frames and frames that refer to later ones.

    `stamps` are milliseconds of the frames (default: at `rate`), `rotation` is degrees counterclockwise in the header.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or _AT_THE_START.get(path.suffix, {})) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv420p", {"g": "10", "bf": "2"}
        if codec == "libx264":
            stream.options |= {"crf": "8"}
        else:
            stream.bit_rate = 8_000_000
        if rotation:
            stream.set_display_rotation(rotation)
        if stamps:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if stamps:
                frame.pts, frame.time_base = stamps[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def sound(path: Path) -> Path:
    """Write an mp4 file with sound and no pictures."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut(path: Path, source: Path, share: float) -> Path:
    """Write the first part of a file, as a broken copy does."""
    data = source.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data[: int(len(data) * share)])
    return path
