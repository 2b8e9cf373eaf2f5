"""Clips as a network takes them: from files, bytes, or frames in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vitrail.core.errors import DataError
from vitrail.data.decode import as_array
from vitrail.data.frame_folders import frames_in, read_folder
from vitrail.data.labels import is_image
from vitrail.data.parts import frames_part
from vitrail.data.preprocess import Preprocess
from vitrail.data.videos import Clip, read_clip
from vitrail.infer.inputs import Source


def clip_for(steps: Preprocess, clip: Any) -> Clip:
    """Return the frames that a network sees of a clip, and their times.

    `clip` is a path of a video or a folder of frames, a source, the bytes of a video, or frames in memory: an array
    (t, height, width, channels) or a list of images, whose times are their numbers.

    Raises:
        DataError: it is no video, broken, or has no frames.
    """
    if isinstance(clip, Source):
        return _read(steps, clip.open(), clip.called)
    if isinstance(clip, str | Path):
        return _read(steps, Path(clip), str(clip))
    if isinstance(clip, bytes):
        return _read(steps, clip, "the clip")
    if not isinstance(clip, list | tuple | np.ndarray) or (isinstance(clip, np.ndarray) and clip.ndim != 4):
        raise DataError(
            "This model takes clips: a path, a list of images, or an array (frames, height, width, channels)."
        )
    frames = list(clip)
    if not frames:
        raise DataError("This clip has no frames. Give at least one.")
    chosen = [(2 * turn + 1) * len(frames) // (2 * steps.frames) for turn in range(steps.frames)]
    shown = [as_array(frames[at], steps.channels) for at in chosen]
    return Clip(np.stack(shown), tuple(float(at) for at in chosen))


def _read(steps: Preprocess, source: Path | bytes, name: str) -> Clip:
    if isinstance(source, Path) and source.is_dir():
        whole = frames_part(0, len(frames_in(source.parent, source.name)))
        clip = read_folder(source.parent, source.name, whole, steps.frames)
    elif is_image(name):
        raise DataError(
            f"{name} is an image, and this model answers for clips of {steps.frames} frames. Give videos, or folders "
            "of frames."
        )
    else:
        clip = read_clip(source, "", steps.frames, name=name)
    return clip._replace(frames=_in_channels(clip.frames, steps.channels))


def _in_channels(frames: np.ndarray[Any, Any], channels: int) -> np.ndarray[Any, Any]:
    """Return frames in colour (t, height, width, 3) as the network takes them: in colour or grey."""
    return frames if channels == 3 else np.stack([as_array(frame, channels) for frame in frames])
