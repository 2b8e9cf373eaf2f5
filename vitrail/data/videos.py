"""Clips: frames of a video file, or of a folder of frames, evenly spaced in time.

Needs the extra `video` (PyAV). A row of a clip has the part `frames=first,stop`, frames in the order in which they are
shown, counted from 0, or no part for a whole file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError, MissingExtraError
from vitrail.data.parts import is_frames

SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".3gp"))
"""Suffixes of video files, in lower case."""


class Clip(NamedTuple):
    """Frames of a video: uint8 (t, height, width, 3), their times in seconds from its start, and notes."""

    frames: NDArray[np.uint8]
    times: tuple[float, ...]
    notes: tuple[str, ...] = ()


def is_clip(path: str, part: str) -> bool:
    """Return whether a row of a manifest is a clip: a video, or frames of one."""
    return is_frames(part) or (not part and is_video(path))


def is_video(name: str) -> bool:
    """Return whether a file is a video, by its suffix."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def evenly(frames: int, count: int) -> list[int]:
    """Return the numbers of `count` frames out of so many: those in the middle of equal spans."""
    return [(2 * turn + 1) * frames // (2 * count) for turn in range(count)]
