"""Clips: frames of a video file, evenly spaced in time.

Needs the extra `video` (PyAV). A row of a clip has the part `frames=first,stop`, frames in the order in which they are
shown, counted from 0, or no part for a whole file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.core.files import replace
from vitrail.core.seeds import derive
from vitrail.data.parts import Part
from vitrail.data.video_frames import AGAIN, Frame, decoded, picture_notes, shown_frames, turns, upright
from vitrail.data.video_index import Index, index_of, library, opened

SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".3gp")
)
"""Suffixes of video files, in lower case."""

ONE_FRAME = "one frame only, which is repeated"

_ROUNDING = 1e-6  # seconds, so that the middle of a span on the start of a frame gives this frame
_FAST = 60.5  # frames a second; above it, a note says what happens to them
_LONG = 600.0  # seconds in one row, of which a network sees a handful of frames
_UNEVEN, _SHARE, _HOLE = 0.25, 0.05, 4.0


class Clip(NamedTuple):
    """Frames of a video: uint8 (t, height, width, 3), their times in seconds from its start, and notes."""

    frames: NDArray[np.uint8]
    times: tuple[float, ...]
    notes: tuple[str, ...] = ()


class VideoFacts(NamedTuple):
    """Facts about a video, and notes on it for a check.

    `frames` is their number, `rate` frames a second, `size` the upright (height, width), `rotation` degrees by which it
    is turned counterclockwise, `missing` the second from which on its end is missing (None: nothing is missing).
    """

    frames: int
    seconds: float
    rate: float
    size: tuple[int, int]
    rotation: int
    missing: float | None
    notes: tuple[str, ...]


def is_video(name: str) -> bool:
    """Return whether a file is a video, by its suffix."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def read_clip(source: Path | bytes, part: str, count: int, *, key: int = -1, name: str = "") -> Clip:
    """Return `count` frames evenly spaced in time over a part of a video ("": all of it).

    They are the frames shown in the middles of `count` equal spans; with a `key` from 0 on, at a time within each
    span, drawn from the key. Only what lies between a key frame and the wanted frames is decoded.

    Raises:
        DataError: missing, empty, not a video, without frames that can be decoded, or without such a part.
        MissingExtraError: PyAV is not installed.
    """
    name = name or (str(source) if isinstance(source, Path) else "the clip")
    index = index_of(source, name)
    first, stop, notes = _span(part, index, name)
    chosen = choose(index.times[first : stop + 1], count, key) + first
    frames, more = decoded(source, index, chosen, name)
    times = tuple(round(float(index.times[i]), 6) for i in chosen)
    return Clip(frames, times, (*more, *notes, *repeated(stop - first, count)))


def repeated(there: int, count: int) -> tuple[str, ...]:
    """Return a note if a clip has fewer frames than are wanted."""
    if there >= count:
        return ()
    return (ONE_FRAME if there == 1 else f"{there} frames where {count} are wanted: some are repeated",)


def choose(times: NDArray[np.float64], count: int, key: int = -1) -> NDArray[np.int64]:
    """Return the numbers of the frames shown in `count` equal spans: (count,).

    `times` (n + 1,) are the seconds of n frames and of their end.
    """
    drawn = np.random.default_rng(derive(key, "frames")) if key >= 0 else None
    within = np.full(count, 0.5) if drawn is None else drawn.random(count)
    at = times[0] + (np.arange(count) + within) * (times[-1] - times[0]) / count
    found = np.searchsorted(times, at + _ROUNDING, side="right") - 1
    chosen: NDArray[np.int64] = np.clip(found, 0, len(times) - 2).astype(np.int64)
    return chosen


def _span(part: str, index: Index, name: str) -> tuple[int, int, list[str]]:
    """Return the first frame of a part, the frame after its last one, and notes on what of it is missing."""
    first, stop = Part.of(part, name).numbers if part else (0, len(index))
    if first >= stop:
        raise DataError(f"{name} asks for the part {part!r}, which is empty. Mend it.")
    if first >= len(index):
        cut = " because its end is missing" if index.cut else ""
        raise DataError(f"{name} has {len(index)} frames{cut}, and none of the part {part!r}. Mend the part.")
    notes = [_missing(index)] if index.cut and stop >= len(index) else []
    if stop > len(index) and not index.cut:
        notes.append(f"its part ends with frame {stop - 1}, the file with frame {len(index) - 1}")
    return first, min(stop, len(index)), notes


def _missing(index: Index) -> str:
    return f"its end is missing from second {index.times[-1]:.1f} on, the rest is used"


def frames_of(source: Path | bytes, name: str = "") -> Iterator[tuple[float, Frame]]:
    """Yield all frames of a video in order: seconds from its first frame, and uint8 (height, width, 3).

    One frame is in memory at a time. Broken frames are left out.

    Raises:
        DataError: as `read_clip`.
    """
    name = name or (str(source) if isinstance(source, Path) else "the clip")
    index = index_of(source, name)
    size = None
    with opened(source, name) as video:
        for stamp, frame in shown_frames(video, index):
            size = size or (frame.width, frame.height)
            yield float((stamp - index.stamps[0]) * index.unit), upright(frame, size)
    if size is None:
        raise DataError(f"{name} has no frame that can be decoded. {AGAIN}")


def video_facts(source: Path | bytes, part: str = "", *, name: str = "") -> VideoFacts:
    """Return facts about a part of a video ("": all of it); of its pictures, only the first is decoded.

    Raises:
        DataError: as `read_clip`.
    """
    name = name or (str(source) if isinstance(source, Path) else "the clip")
    index = index_of(source, name)
    first, stop, notes = _span(part, index, name)
    with opened(source, name) as video:
        frame = next((frame for _, frame in shown_frames(video, index)), None)
        if frame is None:
            raise DataError(f"{name} has no frame that can be decoded. {AGAIN}")
        shape = video.stream.sample_aspect_ratio or Fraction(1)
    if shape != 1:
        notes.append(f"pixels that are not square ({shape.numerator}:{shape.denominator}), taken as they lie")
    times = index.times[first : stop + 1]
    seconds = float(times[-1] - times[0])
    size = (frame.width, frame.height) if turns(frame) % 2 else (frame.height, frame.width)
    return VideoFacts(
        frames=stop - first,
        seconds=seconds,
        rate=(stop - first) / seconds,
        size=size,
        rotation=90 * turns(frame),
        missing=float(index.times[-1]) if index.cut else None,
        notes=(*picture_notes(frame), *notes, *_timing(times, index.unit)),
    )


def _timing(times: NDArray[np.float64], unit: float) -> Iterator[str]:
    """Yield notes on the number of frames and their times: those of n frames and of the end of the last."""
    gaps = np.diff(times[:-1])
    if not len(gaps):
        yield ONE_FRAME
        return
    usual, rate = float(np.median(gaps)), len(gaps) / float(times[-2] - times[0])
    uneven = np.abs(gaps - usual) > max(_UNEVEN * usual, 1.5 * unit)
    if uneven.mean() > _SHARE or gaps.max() > _HOLE * max(usual, unit):
        yield "frames at irregular times, taken by their times"
    elif rate > _FAST:
        yield f"{rate:.0f} frames a second, taken by their times: most lie between those that are used"
    if times[-1] - times[0] > _LONG:
        yield "longer than 10 minutes in one row, of which a network sees only a few frames: cut it with --seconds"


def write_video(path: Path, frames: Iterable[Frame], rate: float) -> None:
    """Write frames (height, width, 3), all of one size, as mp4 (H.264) with `rate` frames a second.

    An odd side becomes even by repeating its last pixels, as the format demands.

    Raises:
        DataError: there are no frames.
        RunError: the file cannot be written.
        MissingExtraError: PyAV is not installed.
    """
    replace(path, lambda temporary: _write(temporary, iter(frames), rate))


def _write(path: Path, frames: Iterator[Frame], rate: float) -> None:
    av = library()
    first = next(frames, None)
    if first is None:
        raise DataError("A video needs at least one frame. Give the frames.")
    height, width = first.shape[:2]
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        stream.options = {"crf": "18", "preset": "fast"}
        for frame in chain([first], frames):
            even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24"))
            )
        container.mux(stream.encode(None))
