"""Detect video frames among images with masks or without labels: consecutive frames are not independent images."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import PurePosixPath

from vitrail.data.labels import count
from vitrail.data.layouts.base import Entry, Layout, Tree

VIDEOS = 10
"""With at least this number of videos each is a group; with fewer, stretches of frames are, to allow resampling."""

STRETCH = 10
"""Number of frames in a stretch."""

LEAST = 5
"""Least mean number of frames per video; other numbered images have fewer per name, or only one name."""

EVEN = 0.8
"""Least share of equal steps between the frame numbers of a video."""

_FRAME = re.compile(r"(?P<video>.*\d.*?)[_-](?:frame_?|f)?(?P<number>\d{2,})", re.IGNORECASE)
_YEAR = re.compile(r"(?:19|20)\d\d")

_Numbered = list[tuple[int, Entry]]


def with_frames(tree: Tree, layout: Layout) -> Layout:
    """Return a layout of masks, or of images alone, with groups for its images if their names are of video frames."""
    asked = layout.truth.kind in {"mask", "none"} and tree.options.groups != "none"
    if not asked or any(one.group for one in layout.found):
        return layout
    videos = _videos(layout.found)
    if not videos:
        return layout
    whole = len(videos) >= VIDEOS
    groups = {id(one): group for video in videos.items() for one, group in _grouped(*video, whole)}
    frames = count(len(groups), "frame")
    names = count(len({video for _, video in videos}), "video")
    tied = "each video counts once" if whole else f"{STRETCH} frames in a row count once"
    note = f"{frames} of {names}, by their names: {tied} in intervals and stay in one split. Leave it: --groups none"
    entries = tuple(one._replace(group=groups.get(id(one), "")) for one in layout.found)
    return replace(layout, found=entries, notes=(*layout.notes, note))


def _videos(entries: Iterable[Entry]) -> Mapping[tuple[str, str], _Numbered]:
    """Return the frames of each split and video in order; empty if the names may not be those of frames."""
    found: dict[tuple[str, str], _Numbered] = defaultdict(list)
    total = 0
    for one in entries:
        total += 1
        match = _FRAME.fullmatch(PurePosixPath(one.id).stem)
        if match and not _YEAR.fullmatch(match["video"]):
            found[one.split, match["video"]].append((int(match["number"]), one))
    named = sum(map(len, found.values()))
    if named < total or len({video for _, video in found}) < 2 or named < LEAST * len(found):
        return {}
    for frames in found.values():
        frames.sort(key=lambda pair: pair[0])
    steps = [Counter(_steps(frames)) for frames in found.values() if len(frames) > 1]
    alike = sum(one.most_common(1)[0][1] for one in steps)
    return found if alike >= EVEN * sum(one.total() for one in steps) else {}


def _steps(frames: _Numbered) -> list[int]:
    numbers = [number for number, _ in frames]
    return [after - before for before, after in pairwise(numbers)]


def _grouped(key: tuple[str, str], frames: _Numbered, whole: bool) -> Iterable[tuple[Entry, str]]:
    split, video = key
    name = f"{split}/{video}" if split else video
    for place, (_, one) in enumerate(frames):
        yield one, name if whole else f"{name} {place // STRETCH + 1}"
