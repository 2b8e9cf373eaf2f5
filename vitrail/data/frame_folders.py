"""Clips that lie as numbered images in a folder, on disk or in an archive.

A row has the folder as its path, `walk/clip1` or `frames.zip!walk/clip1`, and the part `frames=first,stop`: its images
in natural order.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from vitrail.core.errors import DataError
from vitrail.data import archives
from vitrail.data.decode import decode
from vitrail.data.labels import is_image, natural
from vitrail.data.parts import Part
from vitrail.data.videos import Clip, choose, repeated

_NUMBERED = re.compile(r"(?P<word>.*?)\d+")
_LEAST = 2  # frames of a clip

RATE = 25.0
"""Frames a second that are assumed: a folder states no times."""


def numbered_folders(names: Iterable[str]) -> dict[str, list[str]]:
    """Return folder → its images, of names of images, for folders with nothing but numbered images of one name."""
    inside: dict[str, list[str]] = defaultdict(list)
    for name in names:
        inside[name.rpartition("/")[0]].append(name)
    return {folder: own for folder, own in inside.items() if len(own) >= _LEAST and _differ_by_number(own)}


def _differ_by_number(names: Sequence[str]) -> bool:
    """Return whether file names differ in their last number only."""
    matches = [_NUMBERED.fullmatch(PurePosixPath(name).stem) for name in names]
    return all(matches) and len({match["word"] for match in matches if match}) == 1


def frames_in(root: Path, path: str) -> tuple[str, ...]:
    """Return the paths of the images of a folder, relative to `root`, in natural order.

    Raises:
        DataError: the folder does not exist or holds no images.
    """
    outer, _, inside = path.partition("!")
    if archives.is_archive(outer) and (root / outer).is_file():
        file = root / outer
        names = _folders(file, file.stat().st_mtime_ns).get(inside.rstrip("/"), ())
        found = [f"{outer}!{name}" for name in names]
    else:
        found = _listed(root, path)
    if not found:
        raise DataError(f"{path} holds no frames. Put its images back, or check the data again.")
    return tuple(found)


def _listed(root: Path, path: str) -> list[str]:
    try:
        names = [one.name for one in (root / path).iterdir() if _is_frame(one.name)]
    except OSError as error:
        raise DataError(
            f"{path} is no folder of frames under {root}. Put it back, or check the data again."
        ) from error
    return [f"{path}/{name}" for name in sorted(names, key=natural)]


@lru_cache(maxsize=4)
def _folders(file: Path, changed: int) -> Mapping[str, tuple[str, ...]]:
    """Return the images of an archive by their folder, in natural order."""
    found: dict[str, list[str]] = defaultdict(list)
    for member in archives.members(file):
        folder, _, name = member.name.rpartition("/")
        if not member.trouble and _is_frame(name):
            found[folder].append(member.name)
    return {folder: tuple(names) for folder, names in found.items()}


def _is_frame(name: str) -> bool:
    return not name.startswith(".") and is_image(name)


def part_of(root: Path, path: str, part: str) -> tuple[str, ...]:
    """Return the paths of the images of a part of a folder.

    Raises:
        DataError: there is no such part.
    """
    found = frames_in(root, path)
    first, stop = Part.of(part, path).numbers
    if first >= min(stop, len(found)):
        raise DataError(f"{path} has {len(found)} frames, and none of the part {part!r}. Mend its part.")
    return found[first:stop]


def bytes_of(root: Path, name: str) -> bytes:
    """Return the bytes of one image of a folder.

    Raises:
        DataError: it is missing, or not permitted.
    """
    outer, mark, inside = name.partition("!")
    if mark and archives.is_archive(outer) and (root / outer).is_file():
        return archives.read_member(root / outer, inside)
    try:
        return (root / name).read_bytes()
    except OSError as error:
        raise DataError(
            f"{name} cannot be read: {error.strerror}. Put it back, or check the data again."
        ) from error


def read_folder(root: Path, path: str, part: str, count: int, key: int = -1) -> Clip:
    """Return `count` frames of a folder, evenly spaced as in `videos.read_clip`, at `RATE` frames a second.

    Raises:
        DataError: there is no such folder or part, an image is broken, or the images differ in size.
    """
    names = part_of(root, path, part)
    first = Part.of(part, path).numbers[0]
    chosen = choose(np.arange(len(names) + 1) / RATE, count, key).tolist()
    images = {i: decode(bytes_of(root, names[i]), name=names[i]) for i in sorted(set(chosen))}
    sizes: dict[tuple[int, ...], str] = {}
    for i, one in images.items():
        sizes.setdefault(one.image.shape, names[i])
    if len(sizes) > 1:
        (size, usual), (other, odd) = list(sizes.items())[:2]
        raise DataError(
            f"{path} has frames of two sizes: {usual} is {size[1]}x{size[0]}, {odd} {other[1]}x{other[0]}. "
            "Make all of one size."
        )
    notes = dict.fromkeys(note for one in images.values() for note in one.notes)
    frames = np.stack([images[i].image for i in chosen])
    return Clip(frames, tuple((first + i) / RATE for i in chosen), (*notes, *repeated(len(names), count)))


def notes_on(root: Path, path: str, part: str) -> tuple[str, ...]:
    """Return what a check says about a part of a folder; DataError if there is no such part."""
    names = part_of(root, path, part)
    stop = Part.of(part, path).numbers[1]
    gone = stop - Part.of(part, path).numbers[0] - len(names)
    return (
        f"a folder states no times: {RATE:.0f} frames a second are assumed",
        *repeated(len(names), 2),
        *([f"{gone} of the frames of its part are not there"] if gone else []),
    )
