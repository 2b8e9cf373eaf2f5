"""vitrail predict … --out map.tif: a map of a raster."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vitrail.cli.output import print_json, say, table
from vitrail.core.errors import DataError, SettingError, UsageError
from vitrail.core.text import command
from vitrail.data.rasters.sources import common, joined, raster_files
from vitrail.infer.predict_options import AnswerOptions

if TYPE_CHECKING:
    from vitrail.data.rasters.stack import Stack
    from vitrail.infer.inputs import Source
    from vitrail.infer.predictor import Predictor
    from vitrail.infer.rasters.make_map import Raster
    from vitrail.infer.rasters.map_reference import Reference
    from vitrail.infer.rasters.map_table import MapTable

LARGER = 2.0
"""Rasters whose sides are so many times those of an input are not predicted as one image."""


def is_map(out: str | None) -> bool:
    """Return whether --out names a map: a GeoTIFF."""
    return out is not None and out.lower().endswith((".tif", ".tiff"))


def predict_map(
    predictor: Predictor, images: Sequence[str], out: str, options: AnswerOptions, json: bool, csv: str | None
) -> int:
    """Write the map of a raster, print its table of areas, and return the exit code."""
    from vitrail.infer.rasters.make_map import MapOptions, make_map, refuse_others
    from vitrail.infer.rasters.map_files import MapPaths

    refuse_others(predictor)
    _refuse_options(options, csv)
    raster = _raster(predictor, images)
    paths = MapPaths.of(Path(out))
    _refuse_inputs(images, paths)
    reference = None if options.reference is None else _reference(options.reference, raster, predictor)
    asked = MapOptions(options.threshold, options.each_class, reference)
    with _progress() as step:
        found = make_map(predictor, raster, Path(out), asked, step=step, say=say)
    if json:
        print_json({"map": out, "no_data": found.empty, "classes": found.rows()})
    else:
        sys.stdout.write(_printed(found))
    for line in found.remarks:
        say(line)
    say(f"{len(paths)} files written: {', '.join(one.name for one in paths)}")
    return 0


def refuse_squeezed(predictor: Predictor, model: str, sources: Sequence[Source]) -> None:
    """Raise a UsageError, with the command to use, for a large raster that a model of windows would make tiny."""
    steps = predictor.preprocess
    if not steps.window:
        return
    from vitrail.data.rasters.stack import open_stack

    for source in sources:
        if source.path is None or source.member or not raster_files(source.path):
            continue
        stack = open_stack(source.path.parent, source.path.name)
        grid = stack.grid
        if max(grid.height, grid.width) > LARGER * steps.window:
            alone = set(map(str.casefold, steps.band_names)) <= set(map(str.casefold, stack.names))
            files = [source.name] if alone else [one.name for one in sources]
            raise UsageError(
                f"{source.name} has {grid.width:,} x {grid.height:,} pixels, the model sees windows of "
                f"{steps.window} x {steps.window}. Make a map of it: "
                f"{command('predict', model, *files, '--out', 'map.tif')}"
            )


def _refuse_options(options: AnswerOptions, csv: str | None) -> None:
    for name in ("sets", "tiles", "coco", "yolo", "latency"):
        if getattr(options, name) is not None:
            raise SettingError(f"--{name} has no meaning for a map. Remove it.")
    if csv is not None:
        raise SettingError("A map writes its table of areas beside it. Remove --csv.")
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise SettingError(f"A threshold is a probability from 0 to 1, got {options.threshold:g}.")


def _raster(predictor: Predictor, images: Sequence[str]) -> Raster:
    """Return the raster of the files: one, or several that are one only together.

    Raises:
        UsageError: the files are several scenes.
    """
    from vitrail.data.rasters.stack import open_stack
    from vitrail.infer.rasters.make_map import Raster

    files = raster_files(joined(images[0], images[1:]))
    if not files:
        raise UsageError(f"{images[0]} is no raster file. A map is made of rasters such as big.tif.")
    root, names = common(files)
    whole = "|".join(names)
    if len(files) > 1 and _is_whole(open_stack(root, next(iter(names))), predictor):
        commands = " && ".join(
            command("predict", predictor.path, one, "--out", f"{Path(one).stem}-map.tif")
            for one in images[:2]
        )
        raise UsageError(
            f"{images[0]} alone holds all bands of the model, so these are {len(files)} scenes, and --out names one "
            f"map. Make one map each: {commands}"
        )
    return Raster(open_stack(root, whole), images[0] if len(images) == 1 else " + ".join(images))


def _reference(named: str, raster: Raster, predictor: Predictor) -> Reference:
    """Return the reference places of a file, or of a column of it (points.gpkg:class), on the grid of the raster."""
    from vitrail.data.options import LayoutOptions
    from vitrail.data.rasters.labels import read_labels
    from vitrail.infer.rasters.make_map import classes_of
    from vitrail.infer.rasters.map_reference import Reference, refuse_unknown

    file, column = (named, "") if Path(named).exists() else named.rpartition(":")[::2]
    if not Path(file or named).is_file():
        raise DataError(f"{file or named} does not exist. Name a file of reference places.")
    found = read_labels(Path(file), column, raster.stack.grid, LayoutOptions())
    for line in found.notes:
        say(line)
    reference = Reference(Path(file).name, found.classes, found.names)
    refuse_unknown(reference, classes_of(predictor).names)
    return reference


def _is_whole(first: Stack, predictor: Predictor) -> bool:
    known = {name.casefold() for name in first.names}
    return bool(predictor.preprocess.bands) and all(
        name.casefold() in known for name in predictor.preprocess.band_names
    )


def _refuse_inputs(images: Sequence[str], paths: Sequence[Path]) -> None:
    inputs = {Path(one).resolve() for one in images}
    for path in paths:
        if path.resolve() in inputs:
            raise UsageError(f"{path} is an input and would be overwritten. Choose another name for the map.")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Yield what shows the progress on standard error, if it is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("predicting tiles", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _printed(found: MapTable) -> str:
    rows = found.rows()
    head = [key for key in rows[0] if key != "share"]
    lines = [[_cell(row[key]) for key in head] for row in rows]
    return table(head, lines, right=range(1, len(head))) + "\n"


def _cell(value: object) -> str:
    return (
        f"{value:,.2f}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )
