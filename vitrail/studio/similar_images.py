"""Similar images by the features that trainings have cached, read piece by piece, so that memory stays small."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vitrail.core.environment import cache_dir

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vitrail.data.manifest import Row

MOST = 200
"""Images that are shown as similar."""

_TENSOR = "vectors"
_PIECE = 4096  # vectors that are read at a time
_LARGEST_HEADER = 200 << 20
_TYPES = {"F32": "<f4", "F16": "<f2"}


class _Cached(NamedTuple):
    """A file of cached features: the contents that it knows, and where its vectors stand."""

    path: Path
    hashes: list[str]
    width: int
    begin: int
    kind: str


def similar(row: Row, rows: Sequence[Row], most: int = MOST) -> tuple[str, ...]:
    """Return the ids of the images most similar to one, itself first; none if no cache has the features of it."""
    wanted = {one.hash for one in rows if one.hash}
    best = max(
        (one for one in _files() if row.hash in set(one.hashes)),
        key=lambda one: len(wanted.intersection(one.hashes)),
        default=None,
    )
    if best is None:
        return ()
    by_hash = _cosines(best, row.hash)
    scored = [(by_hash[one.hash], one.id) for one in rows if one.hash in by_hash]
    scored.sort(key=lambda pair: (pair[1] != row.id, -pair[0]))
    return tuple(name for _, name in scored[:most])


def _cosines(file: _Cached, content: str) -> dict[str, float]:
    """Return the cosine of every known content with one."""
    import numpy as np

    place = file.hashes.index(content)
    own = next(_vectors(file, place, place + 1))[0]
    own = own / max(float(np.linalg.norm(own)), 1e-12)
    found: list[float] = []
    for some in _vectors(file, 0, len(file.hashes)):
        lengths = np.maximum(np.linalg.norm(some, axis=1), 1e-12)
        found += (some @ own / lengths).tolist()
    return dict(zip(file.hashes, found, strict=True))


def _vectors(file: _Cached, first: int, last: int) -> Iterator[NDArray[np.float32]]:
    """Yield the vectors from one place to another, piece by piece."""
    import numpy as np

    kind = np.dtype(file.kind)
    with file.path.open("rb") as handle:
        handle.seek(file.begin + first * file.width * kind.itemsize)
        for start in range(first, last, _PIECE):
            number = min(_PIECE, last - start)
            data = handle.read(number * file.width * kind.itemsize)
            yield np.frombuffer(data, kind).reshape(number, file.width).astype(np.float32)


def _files() -> Iterator[_Cached]:
    """Yield the caches that hold one vector an image."""
    for path in sorted((cache_dir() / "features").glob("*.safetensors")):
        found = _header(path)
        if found is not None:
            yield found


def _header(path: Path) -> _Cached | None:
    """Return where the vectors of a cache stand; None if it is broken, or holds patches instead of images."""
    try:
        with path.open("rb") as handle:
            size = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(min(size, _LARGEST_HEADER)))
        tensor, hashes = header[_TENSOR], json.loads(header["__metadata__"]["hashes"])
        (number, width), begin = tensor["shape"], 8 + size + tensor["data_offsets"][0]
        whole = number == len(hashes) and path.stat().st_size >= 8 + size + tensor["data_offsets"][1]
        return _Cached(path, hashes, width, begin, _TYPES[tensor["dtype"]]) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
