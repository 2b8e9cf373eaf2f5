"""Folders of rasters: the files whose bands make one stack, Sentinel-2's SAFE folders among them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from vitrail.data.labels import natural
from vitrail.data.rasters.band_names import name_of_file

_ASIDE = frozenset(("TCI", "PVI", "AOT", "WVP", "SCL", "CLD", "SNW"))
_WORD = re.compile(r"[_\-. ]")
_METRES = re.compile(r"[_\-](10|20|60)m(?=[_\-.]|$)", re.IGNORECASE)
_DATA = "/IMG_DATA/"


def is_safe(names: Iterable[str]) -> bool:
    """Return whether files are those of a SAFE folder of Sentinel-2."""
    return any(_DATA in f"/{name}" for name in names)


def bands_of(names: Sequence[str]) -> list[str]:
    """Return the rasters with bands: of a SAFE folder those of its granule, each at its finest; no previews."""
    safe = is_safe(names)
    best: dict[str, tuple[int, str]] = {}
    others = []
    for name in names:
        file = name.rpartition("/")[2]
        if (safe and _DATA not in f"/{name}") or _is_aside(file):
            continue
        metres, band = _METRES.search(file), name_of_file(file)
        if metres is None or not band:
            others.append(name)
            continue
        one = (int(metres[1]), name)
        key = band if safe else f"{_METRES.sub('', name)}"
        best[key] = min(best.get(key, one), one)
    return sorted([*others, *(name for _, name in best.values())], key=natural)


def _is_aside(file: str) -> bool:
    """Return whether a file is a preview, a mask or a product that is no reflectance."""
    words = _WORD.split(file.upper())
    return words[0] == "MSK" or any(word in _ASIDE for word in words)
