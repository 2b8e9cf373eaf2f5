"""Read the image of a manifest row: from its path to its bytes and pixels.

A path is relative to the root. An item inside another file follows an exclamation mark:
`photos.zip!cat/1.jpg`, `set.npz!images!17`, `train.parquet!image!3`, `brain.nii.gz!40`, and a crop of an
image as `street.jpg!40,60,200,180` (left, top, right, bottom). A row may also state its part beside the path, see
`data/parts.py`; the path of a raster may name several files, joined by `|`. Of a clip (`data/videos.py`), the image is
its middle frame; `load_clip` reads several.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitrail.core.errors import DataError
from vitrail.data import archives, containers, frame_folders, parts
from vitrail.data.decode import Decoded, as_array, decode
from vitrail.data.rasters.bands import Band
from vitrail.data.rasters.preview import preview_of
from vitrail.data.rasters.sources import JOIN
from vitrail.data.rasters.stack import open_stack
from vitrail.data.videos import Clip, is_video, read_clip, video_facts

_BOX = re.compile(r"(.+)!(\d+),(\d+),(\d+),(\d+)")


class Place(NamedTuple):
    """A parsed path: the file on disk, the item inside it, and the crop, if any."""

    file: Path
    inside: str
    box: tuple[int, int, int, int] | None


def place(root: Path, path: str) -> Place:
    """Parse a path; an exclamation mark in the name of an existing file belongs to the name.

    Raises:
        DataError: the file does not exist.
    """
    if "!" not in path:
        return Place(root / path, "", None)
    outer, _, inside = path.partition("!")
    if archives.is_archive(outer) and not _BOX.fullmatch(path) and (root / outer).is_file():
        return Place(
            root / outer, inside, None
        )  # by far the most frequent case, so no further file system calls
    if (root / path).is_file():
        return Place(root / path, "", None)
    cut = _BOX.fullmatch(path)
    whole, box = (cut[1], (int(cut[2]), int(cut[3]), int(cut[4]), int(cut[5]))) if cut else (path, None)
    if (root / whole).is_file():
        return Place(root / whole, "", box)
    for mark in re.finditer("!", whole):
        if (root / whole[: mark.start()]).is_file():
            return Place(root / whole[: mark.start()], whole[mark.end() :], box)
    raise DataError(f"{path} does not exist under {root}. Put it back, or check the data again.")


def files_of(root: Path, path: str, part: str = "") -> tuple[Path, ...]:
    """Return the files on disk in which a row lies: one, or those of a raster or of a folder of frames.

    Raises:
        DataError: the file does not exist.
    """
    if _is_folder(path, part):
        names = frame_folders.part_of(root, path, part)
        return tuple(dict.fromkeys(place(root, name).file for name in names))
    if parts.is_raster(part):
        return tuple(root / one for one in path.split(JOIN))
    return (place(root, path).file,)


def read(root: Path, path: str, part: str = "", *, raw: bool = False) -> bytes:
    """Return the bytes of a row's image as the file contains them; slices of arrays are `.npy` bytes.

    A window is cut out of the decoded image (`cut_out`), so its bytes are those of the whole image; a window of a
    raster is an array of its values, a clip an array of its middle frame.

    Raises:
        DataError: missing, not permitted, broken, or an unknown kind of part.
    """
    if parts.is_raster(part):
        return containers.as_npy(_raster(root, path, part).image)
    if is_clip(path, part):
        return containers.as_npy(load_clip(root, path, part, 1).frames[0])
    if not part or parts.is_window(part):
        return _whole(root, path, raw)
    where = parts.Part.of(part, path)
    if where.kind == "slice" and parts.is_volume(path):
        return containers.read_item(place(root, path).file, str(where.numbers[0]), raw)
    return parts.cut(_whole(root, path, raw), where, path)


def _whole(root: Path, path: str, raw: bool) -> bytes:
    where = place(root, path)
    if where.inside:
        if archives.is_archive(where.file.name):
            return archives.read_member(where.file, where.inside)
        return containers.read_item(where.file, where.inside, raw)
    try:
        return where.file.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist under {root}. Put it back, or check the data again."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error


def content_hash(data: bytes, path: str, part: str = "") -> str:
    """Return the content hash of an image in a manifest, from its bytes and its crop."""
    cut = part or (path.rpartition("!")[2] if "," in path else "")
    return blake2b(data + cut.encode(), digest_size=16).hexdigest()


def row_hash(root: Path, path: str, part: str = "") -> str:
    """Return the content hash of a row; of a clip that of its whole file, which is not kept in memory.

    Raises:
        DataError: as `read`.
    """
    if not is_clip(path, part):
        return content_hash(read(root, path, part), path, part)
    if _is_folder(path, part):
        each = (frame_folders.bytes_of(root, name) for name in frame_folders.part_of(root, path, part))
        return content_hash(b"".join(blake2b(data, digest_size=16).digest() for data in each), path, part)
    where = place(root, path)
    if where.inside:
        return content_hash(blake2b(_whole(root, path, False), digest_size=16).digest(), path, part)
    try:
        status = where.file.stat()
        return content_hash(_digest(where.file, status.st_mtime_ns, status.st_size), path, part)
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist under {root}. Put it back, or check the data again."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error


@lru_cache(maxsize=1024)
def _digest(file: Path, changed: int, size: int) -> bytes:
    """Return the hash of a file, computed once for all rows that are parts of it."""
    with file.open("rb") as opened:
        return file_digest(opened, lambda: blake2b(digest_size=16)).digest()


def is_clip(path: str, part: str = "") -> bool:
    """Return whether a row is a clip: a video, a part of one, or a folder of frames."""
    return parts.is_frames(part) or (not part and is_video(path))


def _is_folder(path: str, part: str) -> bool:
    return parts.is_frames(part) and not is_video(path)


def load_clip(root: Path, path: str, part: str, count: int, key: int = -1, channels: int = 3) -> Clip:
    """Return `count` frames of a row, evenly spaced in time: uint8 (count, height, width, channels).

    The row is a video, a member of an archive, or a folder of frames; `key` as in `videos.read_clip`.

    Raises:
        DataError: as `videos.read_clip`, or frames of a folder that differ in size.
    """
    if _is_folder(path, part):
        clip = frame_folders.read_folder(root, path, part, count, key)
    else:
        clip = read_clip(_video(root, path), part, count, key=key, name=path)
    if channels == 3:
        return clip
    return clip._replace(frames=np.stack([as_array(frame, channels) for frame in clip.frames]))


def _video(root: Path, path: str) -> Path | bytes:
    where = place(root, path)
    return _whole(root, path, False) if where.inside else where.file


def clip_notes(root: Path, path: str, part: str) -> tuple[str, ...]:
    """Return what a check says about a clip: conversions, its number of frames and their times.

    Raises:
        DataError: as `load_clip`.
    """
    if _is_folder(path, part):
        return frame_folders.notes_on(root, path, part)
    return video_facts(_video(root, path), part, name=path).notes


def load(
    root: Path, path: str, channels: int = 3, part: str = "", *, raw: bool = False, bands: Sequence[str] = ()
) -> Decoded:
    """Return the image of one row, decoded; `raw` as in `decode`; `bands` are the names of the wanted bands, in order.

    A window of a raster has float values with NaN for missing data, or without `raw` the colours of a preview.

    Raises:
        DataError: missing, unreadable, not an image, without such a band, or an unknown kind of part.
    """
    if parts.is_raster(part):
        found = _raster(root, path, part, bands)
        return found if raw else Decoded(preview_of(found.image, [Band(name) for name in found.bands]), ())
    if is_clip(path, part):
        clip = load_clip(root, path, part, 1, channels=channels)
        return Decoded(clip.frames[0], clip.notes)
    return cut_out(decode(read(root, path, part, raw=raw), channels, path, raw, bands), path, part)


def _raster(root: Path, path: str, part: str, bands: Sequence[str] = ()) -> Decoded:
    stack = open_stack(root, path)
    values = stack.read(parts.raster_window(part, path), bands)
    return Decoded(values, (), tuple(bands) or stack.names, scale=1.0)


def cut_out(shown: Decoded, path: str, part: str = "") -> Decoded:
    """Return the window of an image given by its path or part, or the whole image without one."""
    match = _BOX.fullmatch(path)
    boxes = [tuple(int(number) for number in match.groups()[1:])] if match else []
    if parts.is_window(part):
        boxes.append(parts.Part.of(part, path).numbers)
    image = shown.image
    for left, top, right, bottom in boxes:
        image = image[top:bottom, left:right]
    if not image.size:
        raise DataError(f"{path} asks for a box outside its image. Mend the box, or leave it out.")
    return shown._replace(image=image)
