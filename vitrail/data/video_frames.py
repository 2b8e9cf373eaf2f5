"""Decode wanted frames of a video: a seek to the key frame before them, and nothing beyond the last of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.video_index import Index, Video, library, opened

Frame = NDArray[np.uint8]
"""A frame (height, width, 3) or frames (t, height, width, 3)."""

TURNED = "turned upright by its rotation tag"
AGAIN = "Copy it again from where it came from, or delete it."

_HDR = (16, 18)  # transfer functions of wide brightness: PQ and HLG


def decoded(
    source: Path | bytes, index: Index, chosen: NDArray[np.int64], name: str
) -> tuple[Frame, tuple[str, ...]]:
    """Return frames (t, height, width, 3) by their numbers, in rising order, and notes."""
    starts = index.keys if index.exact else index.keys[:1]
    found: dict[int, Frame] = {}
    notes: dict[str, None] = {}
    lost, size = 0, None
    again = partial(opened, source, name)
    with again() as video:
        numbers = np.unique(chosen)
        at = np.searchsorted(starts, index.stamps[numbers], side="right") - 1
        for start, group in groupby(zip(at, numbers, strict=True), lambda pair: int(pair[0])):
            wanted = [int(number) for _, number in group]
            unread = start <= 0 and not found
            shown = (
                shown_frames(video, index) if unread else _from(video, index, starts, start, wanted[0], again)
            )
            for number, frame, exact in _nearest(shown, index, wanted):
                found[number] = upright(frame, size)
                size = size or (frame.width, frame.height)
                notes.update(dict.fromkeys(picture_notes(frame)))
                lost += not exact
    if not found:
        raise DataError(f"{name} has no frame that can be decoded. {AGAIN}")
    lost += len(numbers) - len(found)
    if lost:
        notes[f"{lost} of {len(numbers)} frames are broken: their neighbours are shown"] = None
    near = {number: min(found, key=lambda one: abs(one - number)) for number in numbers.tolist()}
    return np.stack([found[near[number]] for number in chosen.tolist()]), tuple(notes)


Shown = tuple[int, Any]
"""The stamp of a decoded frame, and the frame."""

Again = Callable[[], AbstractContextManager[Video]]
"""Opens the file again, at its start."""


def _nearest(shown: Iterator[Shown], index: Index, wanted: list[int]) -> Iterator[tuple[int, Any, bool]]:
    """Yield (number, frame, whether it is the frame itself) of each wanted frame; of a broken one, a neighbour."""
    before: Shown | None = None
    left = list(wanted)
    for stamp, frame in shown:
        while left and stamp >= (target := int(index.stamps[left[0]])):
            nearer = before is not None and target - before[0] < stamp - target
            yield left.pop(0), before[1] if nearer and before else frame, stamp == target
        if not left:
            return
        before = stamp, frame
    for number in left if before else []:
        yield number, before[1] if before else None, False


def _from(
    video: Video, index: Index, starts: NDArray[np.int64], start: int, wanted: int, again: Again
) -> Iterator[Shown]:
    """Yield decoded frames beginning at a key frame, at an earlier one where a seek goes too far, or at the start."""
    av = library()
    while index.exact and start > 0:
        try:
            video.container.seek(int(starts[start]), stream=video.stream)
            shown = shown_frames(video, index)
            head = next(shown, None)
        except (av.FFmpegError, OSError):
            head = None
        if head is not None and head[0] <= index.stamps[wanted]:
            yield head
            yield from shown
            return
        start -= 1
    with again() as anew:  # a file without an index of its own cannot be sought in
        yield from shown_frames(anew, index)


def shown_frames(video: Video, index: Index) -> Iterator[Shown]:
    """Yield all frames from the present place on, each with its stamp."""
    for number, frame in enumerate(_all(video)):
        if index.exact:
            if frame.pts is not None:
                yield frame.pts, frame
        else:
            yield int(index.stamps[min(number, len(index) - 1)]), frame


def _all(video: Video) -> Iterator[Any]:
    """Yield all decodable frames; packets that are broken are passed over."""
    av = library()
    packets = video.container.demux(video.stream)
    while True:
        try:
            if (packet := next(packets, None)) is None:
                break
            frames = [] if packet.is_corrupt else packet.decode()
        except av.FFmpegError:  # from a broken container the generator has ended then
            continue
        yield from frames
    with suppress(av.FFmpegError):  # frames that wait for a successor, if the container broke off
        yield from video.stream.codec_context.decode(None)


def upright(frame: Any, size: tuple[int, int] | None = None) -> Frame:
    """Return a decoded frame upright in RGB: (height, width, 3); `size` is the (width, height) of the frames before."""
    width, height = size or (frame.width, frame.height)
    pixels: Frame = frame.to_ndarray(format="rgb24", width=width, height=height)
    return np.ascontiguousarray(np.rot90(pixels, turns(frame)))


def turns(frame: Any) -> int:
    """Return the quarter turns counterclockwise that make a frame upright."""
    return int(round(frame.rotation / 90) % 4)


def picture_notes(frame: Any) -> Iterator[str]:
    """Yield what was done to a frame, or what is unusual about it."""
    if turns(frame):
        yield TURNED
    if frame.color_trc in _HDR:
        yield "wide brightness (HDR) shown without tone mapping"
    if frame.interlaced_frame:
        yield "interlaced: every frame shows two moments"
