"""Facts about an image file, cached by content: the same bytes are never decoded twice."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitrail.core.cache import unkept
from vitrail.core.errors import DataError, MissingExtraError
from vitrail.data.containers import as_npy
from vitrail.data.decode import RULES, Decoded, decode, glance
from vitrail.data.open_image import clip_notes, content_hash, cut_out, is_clip, load_clip, read, row_hash
from vitrail.data.parts import is_window, raster_window
from vitrail.data.rasters.read_windows import Seen, read_windows

GREY_SIDE = 64
"""Side of the grey images that are compared."""

LEAST_SIDE = 256
"""JPEGs may be decoded down to this side; at half of it, one photograph in a hundred did not match its copy."""

SMALL = 48
"""Images with a shorter side look similar too easily: they are duplicates only if their pixels are equal."""

FLAT = 2.0
"""An image whose grey values have a smaller standard deviation (of 255) is of one colour."""

NO_DATA = "no band has data in this window."
"""The error of a window of a raster whose values are all missing."""

_TABLE = f"facts_{RULES + 1}"  # table 2 belonged to the first rules
_ITSELF = "\0"  # placeholder for the file name in a cached error


class Facts(NamedTuple):
    """Facts about a file: the hash of its content, and results of decoding; `error` is empty if it was decoded."""

    hash: str = ""
    pixels: str = ""  # hash of the decoded pixels, of small images only
    sketch: int = 0  # perceptual hash of 63 bits; 0 if the image is small or flat
    size: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()
    spread: float = 0.0  # standard deviation of the grey values
    error: str = ""


class Memory:
    """Cache of facts by content hash in a SQLite file: an interrupted check continues where it stopped.

    Without a path, or if the file cannot be used, nothing is cached.
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
        """Return the cached facts of a content hash, or None."""
        if self._base is None:
            return None
        try:
            with self._lock:
                row = self._base.execute(f"select facts from {_TABLE} where hash = ?", (content,)).fetchone()
        except sqlite3.Error:  # a damaged cache: the image is decoded again
            return None
        if row is None:
            return None
        pixels, sketch, size, notes, spread, error = json.loads(row[0])
        return Facts(content, pixels, sketch, (size[0], size[1]), tuple(notes), spread, error)

    def add(self, facts: Facts) -> None:
        """Add facts, which `keep` will write."""
        with self._lock:
            self._new.append(facts)

    def keep(self) -> None:
        """Write the facts added since the last call to disk."""
        with self._lock:
            rows = [(one.hash, json.dumps(one[1:])) for one in self._new]
            self._new.clear()
            if self._base is not None and rows:
                try:
                    with self._base:
                        self._base.executemany(f"insert or replace into {_TABLE} values (?, ?)", rows)
                except sqlite3.Error as error:  # a full disk: the check continues without a cache
                    unkept(error)

    def close(self) -> None:
        if self._base is not None:
            self._base.close()


def look(root: Path, path: str, memory: Memory, part: str = "") -> Facts:
    """Return the facts of one image, decoded only if its content is not cached; errors are returned, not raised."""
    clip = is_clip(path, part)
    try:
        data = b"" if clip else read(root, path, part)
        content = row_hash(root, path, part) if clip else content_hash(data, path, part)
    except DataError as error:
        return Facts(error=str(error))
    facts = memory.recall(content)
    if facts is None:
        try:
            facts = _of_clip(root, path, part, content) if clip else _decoded(data, path, part, content)
        except MissingExtraError as error:  # not cached, because the extra may be installed later
            return Facts(content, error=str(error).replace(path, _ITSELF))
        memory.add(facts)
    return facts


_FRAMES = 9  # frames that are decoded of a clip, an odd number because pages show the middle one


def _of_clip(root: Path, path: str, part: str, content: str) -> Facts:
    """Return the facts of a clip: small ones are equal only if several frames are, others are compared by one."""
    try:
        frames = load_clip(root, path, part, _FRAMES).frames
        notes = clip_notes(root, path, part)
    except MissingExtraError:
        raise
    except DataError as error:
        return Facts(content, error=str(error).replace(path, _ITSELF))
    views = [grey(Decoded(frame, ())) for frame in frames]
    view, spread = views[_FRAMES // 2], float(np.mean([one.std() for one in views]))
    small = min(frames.shape[1:3]) < SMALL
    pixels = (
        blake2b(repr(frames.shape).encode() + frames.tobytes(), digest_size=16).hexdigest() if small else ""
    )
    sketch = 0 if small or float(view.std()) < FLAT else sketch_of(view)
    return Facts(content, pixels, sketch, frames.shape[1:3], notes, spread)


Mapped = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""`map`, or that of a pool of threads."""

_CHUNK = 64  # windows that one thread reads


def look_windows(root: Path, places: Sequence[tuple[str, str]], mapped: Mapped = map) -> list[Facts]:
    """Return the facts of windows of rasters, each a (path, part); windows that overlap are never compared.

    They are not cached: reading is faster.
    """
    chunks = [places[start : start + _CHUNK] for start in range(0, len(places), _CHUNK)]
    return [one for some in mapped(partial(_look_windows, root), chunks) for one in some]


def _look_windows(root: Path, places: Sequence[tuple[str, str]]) -> list[Facts]:
    found = [Facts()] * len(places)
    by_path: dict[str, list[int]] = defaultdict(list)
    for i, (path, _) in enumerate(places):
        by_path[path].append(i)
    for path, own in by_path.items():
        try:
            windows = [raster_window(places[i][1], path) for i in own]
            for seen in read_windows(root, path, windows):
                found[own[seen.at]] = _of_window(seen, path, places[own[seen.at]][1])
        except DataError as error:
            for i in own:
                found[i] = Facts(error=str(error))
    return found


def _of_window(seen: Seen, path: str, part: str) -> Facts:
    if seen.values is None:
        return Facts(error=seen.error)
    content = content_hash(as_npy(seen.values), path, part)
    if np.isnan(seen.values).all():
        return Facts(content, error=NO_DATA)
    return Facts(content, size=(seen.values.shape[0], seen.values.shape[1]), spread=FLAT)


def named(facts: Facts, path: str) -> Facts:
    """Return facts with the file name in their error; cached facts have a placeholder."""
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
    """Return the image in grey, resized smoothly to (64, 64): with sharp filters, copies of other sizes differ."""
    image = Image.fromarray(shown.image).convert("L")
    return np.asarray(image.resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0))


@lru_cache(maxsize=1)
def _waves() -> NDArray[np.float32]:
    """Return the eight lowest frequencies of the cosine transform on 32 points: (8, 32)."""
    points = (np.arange(32) + 0.5) / 32
    return np.cos(np.pi * np.arange(8)[:, None] * points).astype(np.float32)


def sketch_of(view: NDArray[np.uint8]) -> int:
    """Return the perceptual hash of a grey image (64, 64): its low frequencies compared with their median."""
    coarse = view.reshape(32, 2, 32, 2).mean((1, 3), dtype=np.float32)
    waves = (_waves() @ coarse @ _waves().T).ravel()[1:]  # without the mean, so brightness has no effect
    bits = waves > np.sort(waves)[31]
    return int.from_bytes(np.packbits(bits).tobytes(), "big") >> 1
