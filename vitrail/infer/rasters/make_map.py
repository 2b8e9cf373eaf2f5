"""From a model and a raster to a map: tiles are read, predicted and written in a stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vitrail import __version__
from vitrail.core.errors import RunError, SettingError
from vitrail.data.rasters.grid import Window
from vitrail.data.rasters.stack import Stack
from vitrail.infer.autotune import choose_backend
from vitrail.infer.exported_predictor import ExportedPredictor
from vitrail.infer.predictor import Predictor, Request
from vitrail.infer.rasters.band_checks import check_raster
from vitrail.infer.rasters.map_files import (
    MapClasses,
    MapDrafts,
    MapPaths,
    drafts_beside,
    put_in_place,
    refuse_full_disk,
)
from vitrail.infer.rasters.map_preview import write_preview
from vitrail.infer.rasters.map_reference import Reference, with_reference
from vitrail.infer.rasters.map_table import MapTable, table_of, write_rows
from vitrail.infer.rasters.segment_tiles import BlendedWindows, ExactTiles, margin_of
from vitrail.infer.rasters.tiles import TileAnswer, TileNetwork, inner, number_of_tiles, tiles_of
from vitrail.infer.rasters.window_classes import WindowClasses, shares_work
from vitrail.tasks.class_maps import OfPixels, OfWindows
from vitrail.tasks.segment.areas import colours_of

NONE = "none of these"
GREY = (128, 128, 128)

Step = Callable[[int, int], None]
Say = Callable[[str], None]


class Raster(NamedTuple):
    """The raster of a map: an opened stack, and its name for users."""

    stack: Stack
    name: str


@dataclass(frozen=True, slots=True)
class MapOptions:
    """Options of a map: the smallest mapped probability, whether every class gets a band, and reference places."""

    threshold: float | None = None
    each_class: bool = False
    reference: Reference | None = None


def makes_maps(predictor: Predictor) -> bool:
    """Return whether a model predicts maps: a classifier of windows of rasters, or segmentation of named bands."""
    steps, task = predictor.preprocess, predictor.task
    if isinstance(task, OfWindows):
        return bool(steps.window)
    return isinstance(task, OfPixels) and bool(steps.bands or steps.window)


def make_map(
    predictor: Predictor,
    raster: Raster,
    out: Path,
    options: MapOptions = MapOptions(),
    *,
    step: Step = lambda done, total: None,
    say: Say = lambda line: None,
) -> MapTable:
    """Write the map of a raster and the files beside it (`MapPaths`), and return its table.

    `step` is called after each tile.

    Raises:
        DataError: a band is missing or has another unit, or the raster is broken at some place.
        RunError: the disk is full, or cannot be written.
        SettingError: the model makes no maps.
    """
    refuse_others(predictor)
    for line in (*raster.stack.notes, *check_raster(raster.stack, predictor.preprocess, raster.name)):
        say(line)
    grid, classes = raster.stack.grid, classes_of(predictor)
    bands = predictor.labels if options.each_class else ()
    refuse_full_disk(out, grid, classes, len(bands))
    network = tile_network(predictor, raster.stack, say)
    say(f"Every class is predicted from {network.words}.")
    paths = MapPaths.of(out)
    with drafts_beside(out) as folder:
        drafts = MapDrafts(folder, grid, classes, bands, tags_of(predictor, classes))
        try:
            total = number_of_tiles(grid, network.side)
            for done, core in enumerate(tiles_of(grid, network.side), 1):
                _write_tile(predictor, raster.stack, network, drafts, core, options)
                step(done, total)
            made = drafts.finish(paths)
        finally:
            drafts.close()
        whole = next(draft for draft, place in made.items() if place == paths.classes)
        table = with_reference(table_of(classes.names, drafts.counts, grid), whole, options.reference)
        write_preview(whole, folder / "preview.png", classes)
        write_rows(folder / "areas.csv", table.rows())
        put_in_place({folder / "preview.png": paths.preview, folder / "areas.csv": paths.areas, **made})
    return table


def _write_tile(
    predictor: Predictor,
    stack: Stack,
    network: TileNetwork,
    drafts: MapDrafts,
    core: Window,
    options: MapOptions,
) -> None:
    """Predict a tile and write it: a pixel has data if at least half of the bands have data there."""
    around = network.around(core)
    values = stack.read(around, predictor.preprocess.band_names)
    rows, cols = inner(core, around)
    wanted = np.isnan(values[rows, cols]).mean(-1) <= 0.5
    if wanted.any():
        answer = network.predict(values, core, wanted)
    else:
        answer = TileAnswer(np.zeros((len(predictor.labels), *wanted.shape), np.float32))
    top, numbers, entropy = numbers_of(answer, wanted, len(predictor.labels), options.threshold)
    bands = answer.probabilities if options.each_class else answer.probabilities[:0]
    shares = np.where(wanted, np.concatenate([top[None], bands]), np.float32(np.nan))
    drafts.write(core, numbers, shares, np.where(wanted, entropy, np.float32(np.nan)))


def numbers_of(
    answer: TileAnswer, wanted: NDArray[np.bool_], many: int, threshold: float | None
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Return the highest probability, the number in the map, and the entropy as a share of its maximum, ln k."""
    shares = answer.probabilities
    top = shares.max(0)
    numbers = shares.argmax(0) + 1
    if answer.none is not None:
        numbers[answer.none] = many + 1
    if threshold is not None:
        numbers[top < threshold] = 0
    numbers[~wanted] = 0
    found = torch.special.entr(torch.from_numpy(shares)).sum(0).numpy()
    return top, numbers, found / np.float32(np.log(many))


def tile_network(predictor: Predictor, stack: Stack, say: Say) -> TileNetwork:
    """Return what predicts the tiles of a raster with a model, with the fastest faithful backend."""
    request, task = Request(predictor.point), predictor.task
    if isinstance(task, OfPixels):
        if margin := margin_of(predictor):
            return ExactTiles(predictor, task, request, margin)
        return BlendedWindows(predictor, task, request, stack.grid)
    assert isinstance(task, OfWindows), "refuse_others raises for other tasks"
    network, steps = predictor.at(request.point), predictor.preprocess_at(request.point)
    if not shares_work(network, steps):
        choice = choose_backend(
            predictor,
            stack.grid.height * stack.grid.width,
            lambda count: proof_windows(stack, predictor, count),
        )
        if choice.why:
            say(choice.why)
        request = choice.request
    return WindowClasses(predictor, task, request)


def proof_windows(stack: Stack, predictor: Predictor, count: int) -> list[NDArray[np.float32]]:
    """Return so many windows of a raster, evenly spread, on which backends are compared with float32."""
    side, names, grid = predictor.preprocess.window, predictor.preprocess.band_names, stack.grid
    found: list[NDArray[np.float32]] = []
    for place in np.linspace(0, max(0, grid.height * grid.width - 1), count).round().astype(int).tolist():
        row, col = divmod(place, grid.width)
        top, left = row - side // 2, col - side // 2
        found.append(stack.read((left, top, left + side, top + side), names))
    return found


def refuse_others(predictor: Predictor) -> None:
    """Raise a SettingError for a model that makes no maps."""
    if isinstance(predictor, ExportedPredictor):
        raise SettingError(
            f"{predictor.path} is an exported file, which makes no maps. Give the run that it was exported from."
        )
    if not makes_maps(predictor):
        raise SettingError(
            f"{predictor.path} makes no maps: its task is {predictor.task.name}, on images. Train on a raster with "
            "labels (classify or segment), or name a folder with --out."
        )


def classes_of(predictor: Predictor) -> MapClasses:
    """Return the names and colours of the numbers of a map; "none of these" is the last, if the model has it."""
    task = predictor.task
    names, colours = task.labels, colours_of(task.labels, task.truth.colours)
    if isinstance(task, OfWindows) and "novelty" in task.outputs:
        return MapClasses((*names, NONE), (*colours, GREY))
    return MapClasses(names, colours)


def tags_of(predictor: Predictor, classes: MapClasses) -> dict[str, str]:
    """Return what the files say of their origin."""
    try:
        with predictor.path.open("rb") as handle:
            digest = file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"{predictor.path} cannot be read: {error.strerror}. Put it back.") from error
    return {
        "TIFFTAG_SOFTWARE": f"vitrail {__version__}",
        "TIFFTAG_IMAGEDESCRIPTION": f"Classes predicted by {predictor.header.name}: 0 no data, "
        + ", ".join(f"{i} {name}" for i, name in enumerate(classes.names, 1)),
        "vitrail_model": predictor.header.name,
        "vitrail_model_sha256": digest,
        "vitrail_version": __version__,
    }
