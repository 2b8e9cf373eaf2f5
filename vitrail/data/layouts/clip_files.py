"""Which files of a source are clips: its videos, or its folders of numbered frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from vitrail.data.frame_folders import numbered_folders
from vitrail.data.labels import SPLITS, count, is_image, shorten
from vitrail.data.layouts.base import CLIPS, Tree
from vitrail.data.videos import SUFFIXES, is_video

_HEAD = 4096  # bytes of a table that are looked at
_SHARE = 0.9
"""Least share of the images that are frames, for a hint that they are."""

_USUAL = 8
"""Least mean number of frames for a hint: folders of fewer numbered images are rarely clips."""


def as_clips(tree: Tree) -> Tree:
    """Return the tree with its videos in place of images, or without any, with its folders of frames.

    The tree is unchanged if it has neither.
    """
    if videos := videos_of(tree):
        return replace(tree, clips=tuple(videos))
    frames = folders_of_frames(tree)
    paths = {folder: _folder_path(tree, folder, names[0]) for folder, names in frames.items()}
    gone = {name for folder in frames for name in frames[folder]}
    files = {name: path for name, path in tree.files.items() if name not in gone} | paths
    return replace(tree, files=MappingProxyType(files), clips=tuple(frames)) if frames else tree


def videos_of(tree: Tree) -> list[str]:
    """Return the names of the videos, by their suffix."""
    return [name for name in tree.files if is_video(name)]


def names_videos(tree: Tree) -> bool:
    """Return whether the table that is the source names videos near its beginning, whatever else lies beside it."""
    with (tree.root / tree.table).open("rb") as opened:
        head = opened.read(_HEAD).lower()
    return any(suffix.encode() in head for suffix in SUFFIXES)


def folders_of_frames(tree: Tree) -> Mapping[str, list[str]]:
    """Return folder → its images, for folders inside the source that hold nothing but numbered images of one name."""
    found = numbered_folders(name for name in tree.files if is_image(name))
    return {
        folder: names for folder, names in found.items() if folder and _folder_path(tree, folder, names[0])
    }


def _folder_path(tree: Tree, folder: str, frame: str) -> str:
    """Return the path of a folder from that of a frame in it; "" if it is not a folder there."""
    path = tree.files[frame].removesuffix(frame.rpartition("/")[2])
    return path[:-1] if path.endswith("/") else ""


def _is_in_a_class(folder: str) -> bool:
    """Return whether a folder lies in that of a class, as a clip does; folders of splits count for nothing."""
    return sum(part.casefold() not in SPLITS for part in folder.split("/")) > 1


def hints(tree: Tree, name: str) -> list[str]:
    """Return notes on what a layout of images leaves aside or mistakes: videos, and folders of frames."""
    if name == CLIPS or tree.options.layout != "auto":
        return []
    if videos := videos_of(tree):
        what = f"{count(len(videos), 'video')} left aside: {shorten(videos)}."
        return [f"{what} Images and videos are not mixed; to take the videos: --layout {CLIPS}"]
    if not any(one.count("/") > 1 for one in tree.pictures):
        return []
    frames = {folder: names for folder, names in folders_of_frames(tree).items() if _is_in_a_class(folder)}
    number = sum(map(len, frames.values()))
    if number < max(1, _SHARE * len(tree.pictures)) or number < _USUAL * len(frames):
        return []
    what = f"{count(number, 'image')} in {count(len(frames), 'folder')} look like frames of clips"
    return [f"{what} ({next(iter(frames.values()))[0]}). To take each folder as a clip: --layout {CLIPS}"]
