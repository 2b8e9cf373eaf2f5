"""Open a video file, and list its frames without decoding them: when each is shown, and where decoding can begin.

The times are those of the file, so frames at irregular times are found as exactly as others. PyAV's `av` is imported
when the first video is opened (extra `video`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError, MissingExtraError
from vitrail.data.foreign_files import no_video

_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpeg,mpegts,mpegvideo,asf,flv,ogg"
"""Formats that may be opened. Not play lists, which would open other files and addresses."""

_DECLARES = ("matroska", "avi", "asf", "flv")
"""Formats whose header states a duration that is not estimated from the size of the file."""

_SOUGHT = ("mov", "matroska")
"""Formats that state the time of every frame, so that it is also known after a seek."""

_LATE = 0.5  # seconds by which the end of a whole file may differ from the duration in its header
_USUAL = 0.04  # seconds that a single frame of unknown duration is shown


class Video(NamedTuple):
    """An opened file and its stream of pictures."""

    container: Any
    stream: Any
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Index:
    """The frames of a video in the order in which they are shown.

    `stamps` (n,) are their times in units of the stream, `unit` such a unit in seconds, `keys` the stamps of frames at
    which decoding can begin. `exact` is False if the file states no order: its frames must then be counted from its
    start. `cut` tells that its end is missing.
    """

    stamps: NDArray[np.int64]
    keys: NDArray[np.int64]
    end: int
    unit: float
    exact: bool
    cut: bool

    @property
    def times(self) -> NDArray[np.float64]:
        """Seconds from the first frame to each frame, and to the end: (n + 1,)."""
        stamps = np.append(self.stamps, self.end)
        times: NDArray[np.float64] = (stamps - stamps[0]) * self.unit
        return times

    def __len__(self) -> int:
        return len(self.stamps)


def library() -> Any:
    """Return PyAV.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module("av")
    except ImportError as error:
        raise MissingExtraError(
            "Videos need PyAV to be read and written: pip install 'vitrail[video]'."
        ) from error


@contextmanager
def opened(source: Path | bytes, name: str) -> Iterator[Video]:
    """Open a video; a file on disk is read as needed, never whole.

    Raises:
        DataError: missing, empty, not a video, without pictures, or cut off before its index.
        MissingExtraError: PyAV is not installed.
    """
    av = library()
    size = _size(source, name)
    try:
        place = f"file:{source.absolute()}" if isinstance(source, Path) else BytesIO(source)
        container = av.open(place, options={"format_whitelist": _FORMATS})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{name} {no_video(_head(source), _why(error))}.") from error
    with container:
        yield Video(container, _pictures(container, name), size)


def _size(source: Path | bytes, name: str) -> int:
    try:
        size = source.stat().st_size if isinstance(source, Path) else len(source)
        if isinstance(source, Path) and size:
            _head(source)
    except FileNotFoundError as error:
        raise DataError(f"{name} does not exist. Check the spelling of its name.") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}. Check its permissions.") from error
    if not size:
        raise DataError(f"{name} is empty (0 bytes). Copy it again from where it came from, or delete it.")
    return size


def _head(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:512]
    with source.open("rb") as file:
        return file.read(512)


def _pictures(container: Any, name: str) -> Any:
    """Return the stream of pictures; the cover of a piece of music is none."""
    covers = container.streams.video and type(container.streams.video[0].disposition).attached_pic
    found = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not found:
        what = "sound only, no pictures" if container.streams.audio else "no pictures"
        raise DataError(f"{name} holds {what}. Give the video itself, or delete the file.")
    if found[0].codec_context is None:
        raise DataError(f"{name} is packed in a way that is not known. Save it as mp4 (H.264).")
    found[0].codec_context.thread_count = 1  # the workers of a loader are the threads
    return found[0]


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", "") or error)


def index_of(source: Path | bytes, name: str) -> Index:
    """Return the index of a video; that of a file on disk is kept in memory until the file changes.

    Raises:
        DataError: as `opened`, or it has no frames.
    """
    if isinstance(source, bytes):
        return _indexed(source, name)
    try:
        status = source.stat()
    except OSError:
        return _indexed(source, name)  # which names the trouble
    return _kept_index(source, name, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1024)
def _kept_index(source: Path, name: str, changed: int, size: int) -> Index:
    return _indexed(source, name)


def _indexed(source: Path | bytes, name: str) -> Index:
    with opened(source, name) as video:
        format_ = video.container.format.name
        stated = [entry.pos + entry.size for entry in video.stream.index_entries] if "mov" in format_ else []
        packets, reached, broken = _listed(video)
        if not packets:
            how = (
                "its pictures are missing: the file is cut"
                if max(stated, default=0) > video.size
                else "no frames"
            )
            raise DataError(
                f"{name} holds no frames ({how}). Copy it again from where it came from, or delete it."
            )
        cut = broken or max(stated, default=0) > video.size
        if any(word in format_ for word in _DECLARES) and video.container.duration:
            cut = cut or reached < video.container.duration / 1e6 - _LATE
        index = _ordered(packets, float(video.stream.time_base), cut)
        return index if any(word in format_ for word in _SOUGHT) else replace(index, keys=index.keys[:1])


class _Packet(NamedTuple):
    shown: int | None
    order: int
    key: bool
    duration: int


def _listed(video: Video) -> tuple[list[_Packet], float, bool]:
    """Return the frames of the file, the seconds that any of its streams reaches, and whether one is incomplete."""
    av, found, reached, broken = library(), list[_Packet](), 0.0, False
    start = (video.container.start_time or 0) / 1e6
    try:
        for packet in video.container.demux():
            if packet.dts is None and packet.pts is None:
                continue
            broken = broken or packet.is_corrupt
            order = packet.dts if packet.dts is not None else packet.pts
            end = max(order, packet.pts or order) + (packet.duration or 0)
            reached = max(reached, float(end * packet.time_base) - start)
            if packet.stream_index == video.stream.index and not packet.is_corrupt and not packet.is_discard:
                found.append(_Packet(packet.pts, order, packet.is_keyframe, packet.duration or 0))
    except (av.FFmpegError, OSError, ValueError):  # the container is broken here: what came before counts
        broken = True
    return found, reached, broken


def _ordered(packets: list[_Packet], unit: float, cut: bool) -> Index:
    exact = all(packet.shown is not None for packet in packets)
    stamps = np.array([packet.shown if exact else packet.order for packet in packets], np.int64)
    keys = np.array([s for s, packet in zip(stamps, packets, strict=True) if packet.key], np.int64)
    last = int(stamps.argmax())
    stamps = np.sort(stamps)
    gap = packets[last].duration or (round(float(np.median(np.diff(stamps)))) if len(stamps) > 1 else 0)
    end = int(stamps[-1]) + max(gap or round(_USUAL / unit), 1)
    return Index(stamps, np.sort(keys), end, unit, exact, cut)
