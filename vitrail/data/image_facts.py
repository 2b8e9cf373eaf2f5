"""What one look at one file tells, and a memory of it: the same bytes are never decoded twice."""

from __future__ import annotations

import json
import sqlite3
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitrail.core.cache import unkept
from vitrail.core.errors import DataError, MissingExtraError
from vitrail.data.decode import RULES, Decoded, decode, glance
from vitrail.data.open_image import content_hash, cut_out, read
from vitrail.data.parts import is_window

GREY_SIDE = 64
"""Side of the grey image that two images are compared by."""

LEAST_SIDE = 256
"""JPEGs may be decoded down to this side: at half of it, one photograph in a hundred no longer knew its own copy."""

SMALL = 48
"""Images with a shorter side than this look alike too easily: only equal pixels make them twins."""

FLAT = 2.0
"""An image whose greys deviate by less than this (of 255) shows nothing."""

_TABLE = f"facts_{RULES + 1}"  # the second was of the first rules
_ITSELF = "\0"  # stands for the file's name in a remembered error


class Facts(NamedTuple):
    """What a file is: its content's hash, and what decoding it told; `error` is empty where it decoded."""

    hash: str = ""
    pixels: str = ""  # hash of the decoded pixels, of small images only
    sketch: int = 0  # perceptual hash of 63 bits; 0 where the image is small or flat
    size: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()
    spread: float = 0.0  # deviation of the greys
    error: str = ""


class Memory:
    """Facts by content, in one SQLite file: a check that was killed goes on where it stopped.

    Without a path, or where the file cannot be used, nothing is remembered.
    """

    def __init__(self, path: Path | None) -> None:
        self._lock = Lock()
        self._new: list[Facts] = []
        self._base: sqlite3.Connection | None = None
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._base = sqlite3.connect(path, timeout=30, check_same_thread=False)
                self._base.execute("pragma journal_mode = wal")
                self._base.execute(f"create table if not exists {_TABLE} (hash text primary key, facts text)")
            except (sqlite3.Error, OSError) as error:
                unkept(error)
                self._base = None

    def recall(self, content: str) -> Facts | None:
        """Return what is known of a content, or None."""
        if self._base is None:
            return None
        try:
            with self._lock:
                row = self._base.execute(f"select facts from {_TABLE} where hash = ?", (content,)).fetchone()
        except sqlite3.Error:  # damaged: what it knew is found out again
            return None
        if row is None:
            return None
        pixels, sketch, size, notes, spread, error = json.loads(row[0])
        return Facts(content, pixels, sketch, (size[0], size[1]), tuple(notes), spread, error)

    def add(self, facts: Facts) -> None:
        """Note facts that `keep` will write."""
        with self._lock:
            self._new.append(facts)

    def keep(self) -> None:
        """Write what was noted since the last time; it is on disk when this returns."""
        with self._lock:
            rows = [(one.hash, json.dumps(one[1:])) for one in self._new]
            self._new.clear()
            if self._base is not None and rows:
                try:
                    with self._base:
                        self._base.executemany(f"insert or replace into {_TABLE} values (?, ?)", rows)
                except sqlite3.Error as error:  # a full disk: the check goes on without a memory
                    unkept(error)

    def close(self) -> None:
        """Close the file."""
        if self._base is not None:
            self._base.close()


def look(root: Path, path: str, memory: Memory, part: str = "") -> Facts:
    """Read one image, decode it unless its content is known, and say what it is; a bad file is told, not raised."""
    try:
        data = read(root, path, part)
    except DataError as error:
        return Facts(error=str(error))
    content = content_hash(data, path, part)
    facts = memory.recall(content)
    if facts is None:
        try:
            facts = _decoded(data, path, part, content)
        except MissingExtraError as error:  # not remembered: it may be installed by the next time
            return Facts(content, error=str(error).replace(path, _ITSELF))
        memory.add(facts)
    return facts


def named(facts: Facts, path: str) -> Facts:
    """Return facts whose error calls the file by its name: what is remembered of a content knows no name."""
    return facts._replace(error=facts.error.replace(_ITSELF, path)) if facts.error else facts


def _decoded(data: bytes, path: str, part: str, content: str) -> Facts:
    try:
        cut = is_window(part) or ("!" in path and "," in path)
        cropped = cut_out(decode(data, name=_ITSELF), path, part) if cut else None
        shown, size = (cropped, cropped.image.shape[:2]) if cropped else glance(data, _ITSELF, LEAST_SIDE)
    except MissingExtraError:
        raise
    except DataError as error:
        return Facts(content, error=str(error).replace(path, _ITSELF))
    pixels, sketch = "", 0
    view = grey(shown)
    spread = float(view.std())
    if min(size) < SMALL:
        pixels = blake2b(repr(shown.image.shape).encode() + shown.image.tobytes(), digest_size=16).hexdigest()
    elif spread >= FLAT:
        sketch = sketch_of(view)
    return Facts(content, pixels, sketch, (size[0], size[1]), shown.notes, spread)


def grey_of(root: Path, path: str, part: str = "") -> NDArray[np.uint8]:
    """Return the grey image (64, 64) of a row."""
    data = read(root, path, part)
    return grey(
        cut_out(decode(data, name=path), path, part) if is_window(part) else glance(data, path, LEAST_SIDE)[0]
    )


def grey(shown: Decoded) -> NDArray[np.uint8]:
    """Return an image in grey, squashed smoothly to (64, 64): sharp filters tell copies of other sizes apart."""
    image = Image.fromarray(shown.image).convert("L")
    return np.asarray(image.resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0))


@lru_cache(maxsize=1)
def _waves() -> NDArray[np.float32]:
    """Return the eight longest waves of the cosine transform on 32 points, (8, 32)."""
    points = (np.arange(32) + 0.5) / 32
    return np.cos(np.pi * np.arange(8)[:, None] * points).astype(np.float32)


def sketch_of(view: NDArray[np.uint8]) -> int:
    """Return the perceptual hash of a grey image (64, 64): the signs of its coarsest waves about their median."""
    coarse = view.reshape(32, 2, 32, 2).mean((1, 3), dtype=np.float32)
    waves = (_waves() @ coarse @ _waves().T).ravel()[1:]  # without the mean: brightness is no content
    bits = waves > np.sort(waves)[31]
    return int.from_bytes(np.packbits(bits).tobytes(), "big") >> 1
