"""Draw the tested places of a raster as maps: the truth, and beside it what the model answered there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitrail import plots
from vitrail.data.labels import count, shorten
from vitrail.data.manifest import Row
from vitrail.data.parts import is_raster, raster_window
from vitrail.tasks.result import Matrix, Result

Colours = Sequence[tuple[int, int, int]]
Mask = NDArray[np.uint8]

SIDE = 700
"""Longest side of a map in pixels; of larger areas a pixel of the map stands for several."""

WIDEST_DOT = 5
"""Largest side in pixels of the dot that marks a place where places are sparse."""

MAPS = 4
"""Maps on a page, of the scenes with most places."""

UNTESTED = 255
"""The value of pixels that were not tested; so many classes have no map."""

LETTERS = 15
"""Size of the letters above a map."""

GROUND = (236, 238, 241)


class _Places(NamedTuple):
    """Tested places of a scene, (n,) each: column and row in its pixels, true class and answer."""

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    truth: NDArray[np.int64]
    answer: NDArray[np.int64]


def raster_map(rows: Iterable[Row], colours: Colours, result: Result) -> dict[str, Any] | None:
    """Return the template values of the maps; None without a confusion matrix, or without windows of rasters.

    A window stands for the pixel in its middle (index n / 2), which is the one that has the label. `colours` are those
    of the classes, () for colours of our own.
    """
    matrix = next((one for one in result.sections if isinstance(one, Matrix) and not one.columns), None)
    known = {row.id: row for row in rows if is_raster(row.part)}
    if matrix is None or not known or len(matrix.labels) >= UNTESTED:
        return None
    scenes = dict(_scenes(matrix, known))
    if not scenes:
        return None
    own = len(colours) == len(matrix.labels)
    shown = colours if own else plots.distinct_colours(len(matrix.labels))
    largest = sorted(scenes, key=lambda path: -len(scenes[path].x))[:MAPS]
    drawn = [_drawn(scenes[path], matrix.labels, shown, path if len(scenes) > 1 else "") for path in largest]
    note = _note(scenes, [path for path in scenes if path not in largest])
    return {
        "kind": "curve",
        "heading": "The map",
        "image": plots.data_uri(plots.below(*drawn)),
        "note": note,
    }


def _scenes(matrix: Matrix, known: dict[str, Row]) -> Iterator[tuple[str, _Places]]:
    """Yield the path and the tested places of each scene."""
    found: dict[str, list[tuple[int, int, int, int]]] = {}
    for (truth, answer), shots in sorted(matrix.shots.items()):
        for row in (known[shot.id] for shot in shots if shot.id in known):
            left, top, right, bottom = raster_window(row.part, row.path)
            place = (left + (right - left) // 2, top + (bottom - top) // 2, truth, answer)
            found.setdefault(row.path, []).append(place)
    for path in sorted(found):
        yield path, _Places(*np.array(found[path], np.int64).T)


def _drawn(places: _Places, names: Sequence[str], colours: Colours, title: str) -> Image.Image:
    """Return truth and answer of a scene side by side above their legend."""
    masks = [_painted(places, classes) for classes in (places.truth, places.answer)]
    table = np.full((256, 3), GROUND, np.uint8)
    table[: len(colours)] = np.asarray(colours, np.uint8).reshape(-1, 3)
    images = [_enlarged(Image.fromarray(table[mask])) for mask in masks]
    titles = [f"{word}: {title}" if title else word for word in ("truth", "answer")]
    both = plots.beside(
        *(plots.titled(image, text, LETTERS) for image, text in zip(images, titles, strict=True))
    )
    return plots.with_legend(both, names, colours, *masks)


def _enlarged(image: Image.Image) -> Image.Image:
    """Return a small map with each pixel several times, and a large one as it is."""
    times = max(1, SIDE // 2 // max(image.size))
    return image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST)


def _painted(places: _Places, classes: NDArray[np.int64]) -> Mask:
    """Return the classes of the places on the area around them."""
    x, y = places.x - places.x.min(), places.y - places.y.min()
    step = -(-max(int(x.max()), int(y.max()), 1) // SIDE)
    x, y = x // step, y // step
    spacing = ((int(x.max()) + 1) * (int(y.max()) + 1) / len(x)) ** 0.5
    dot = int(np.clip(spacing / 3, 1, WIDEST_DOT))
    mask = np.full((int(y.max()) + dot, int(x.max()) + dot), UNTESTED, np.uint8)
    for down, across in product(range(dot), repeat=2):
        mask[y + down, x + across] = classes
    return mask


def _note(scenes: dict[str, _Places], left_out: Sequence[str]) -> str:
    places = sum(len(one.x) for one in scenes.values())
    lines = [f"{count(places, 'tested place')}, each at its pixel; what is grey was not tested."]
    if left_out:
        lines.append(f"Without the scenes with fewer places: {shorten(left_out)}.")
    return " ".join(lines)
