"""Small images for pages: made at first sight, cached by content, decoded at a fraction of the size."""

from __future__ import annotations

import os
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from threading import Condition, Lock
from typing import TYPE_CHECKING

from vitrail.core.cache import unkept
from vitrail.core.environment import cache_dir

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.data.decode import Decoded
    from vitrail.data.manifest import Row

SIDE = 256
"""The longest side of a thumbnail in pixels."""

LARGE = 1600
"""The longest side of an image that is looked at alone."""

_COARSE = 128  # a smaller image is shown in whole pixels, not smoothed
_HEADER = 12  # bytes of a WebP file before its image: RIFF, the size of what follows, WEBP
_REMEMBERED = 200_000
_RULES = 2  # increase it when thumbnails look different, to invalidate cached ones


class Turns:
    """Lets only so many threads decode at once; `allowed` says how many, each time."""

    def __init__(self, allowed: Callable[[], int]) -> None:
        self._allowed, self._busy = allowed, 0
        self._free = Condition()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and hold it."""
        with self._free:
            self._free.wait_for(lambda: self._busy < self._allowed())
            self._busy += 1
        try:
            yield
        finally:
            with self._free:
                self._busy -= 1
                self._free.notify_all()


class Thumbnails:
    """Makes and keeps thumbnails. What a stamp's content is remembered, so that a cached one needs no original."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self._contents: OrderedDict[str, str] = OrderedDict()
        self._lock = Lock()

    def thumbnail(self, root: Path, row: Row, stamp: str) -> bytes:
        """Return the thumbnail of a row as WebP. DataError if the image is missing or broken."""
        from PIL import Image as images

        from vitrail.data.open_image import content_hash, row_hash

        content = self._contents.get(stamp, "")
        if content and (known := _whole(_cached(content))):
            return known
        with self.turns.turn():
            data = bytes_of(root, row)
            content = content_hash(data, row.path, row.part) if data else row_hash(root, row.path, row.part)
            self._remember(stamp, content)
            if known := _whole(_cached(content)):
                return known
            small = encode(reduced(images.fromarray(glanced(root, data, row, SIDE).image), SIDE))
        _keep(_cached(content), small)
        return small

    def _remember(self, stamp: str, content: str) -> None:
        with self._lock:
            self._contents[stamp] = content
            if len(self._contents) > _REMEMBERED:
                self._contents.popitem(last=False)


def stamp_of(root: Path, row: Row) -> str:
    """Return what changes when the file of a row does; of a missing file "0"."""
    from vitrail.core.errors import DataError
    from vitrail.data.open_image import place

    try:
        file = place(root, row.path).file
        status = file.stat()
    except (OSError, DataError):
        return "0"
    told = f"{file}\0{row.path}\0{row.part}\0{status.st_mtime_ns}\0{status.st_size}"
    return blake2b(told.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def bytes_of(root: Path, row: Row) -> bytes:
    """Return the bytes of an image; none of a clip, which is never read whole."""
    from vitrail.data.open_image import is_clip, read

    return b"" if is_clip(row.path, row.part) else read(root, row.path, row.part)


def glanced(root: Path, data: bytes, row: Row, least: int) -> Decoded:
    """Return an image that is at least so large on each side, or whole if it is smaller; of a clip its middle frame."""
    from vitrail.data.decode import decode, glance
    from vitrail.data.open_image import cut_out, is_clip, load
    from vitrail.data.parts import is_window

    if is_clip(row.path, row.part):
        return load(root, row.path, part=row.part)
    if is_window(row.part) or ("!" in row.path and "," in row.path):
        return cut_out(decode(data, name=row.path), row.path, row.part)
    return glance(data, row.path, least)[0]


def reduced(image: Image, side: int) -> Image:
    """Return an image whose longest side is at most `side`; a tiny one is enlarged in whole pixels."""
    from PIL import Image as images

    longest = max(image.size)
    if longest < _COARSE:
        times = _COARSE // longest
        size = (image.width * times, image.height * times)
        return image.resize(size, images.Resampling.NEAREST)
    image.thumbnail((side, side), images.Resampling.BILINEAR, reducing_gap=2.0)
    return image


def encode(image: Image) -> bytes:
    """Return an image as WebP, without loss if it has few pixels."""
    buffer = BytesIO()
    if max(image.size) <= _COARSE:
        image.save(buffer, "WEBP", lossless=True, method=2)
    else:
        image.save(
            buffer, "WEBP", quality=82, method=0
        )  # a wall waits for it: half the time, 10 % more bytes
    return buffer.getvalue()


def _whole(file: Path) -> bytes | None:
    """Return a file of the cache; None if there is none, or not all of it was written when the power went."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    return data if len(data) > _HEADER and int.from_bytes(data[4:8], "little") + 8 == len(data) else None


def _keep(file: Path, data: bytes) -> None:
    """Write a file of the cache. It does not wait for the disk: what is cut off is made again (`_whole`)."""
    draft = file.with_name(f"{uuid.uuid4().hex}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        os.replace(draft, file)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        unkept(error)


def _cached(content: str) -> Path:
    return cache_dir() / "thumbnails" / f"{_RULES}-{SIDE}" / content[:2] / f"{content}.webp"
