"""Read a whole small raster by the names of its bands: what `vitrail predict` and a server get as one image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data import tiff
from vitrail.data.decode import MAX_PIXELS, decode
from vitrail.data.preprocess import Preprocess
from vitrail.data.rasters.grid import Grid
from vitrail.data.rasters.stack import open_stack, stack_of_bytes


def decode_for(steps: Preprocess, source: Path | bytes, name: str = "") -> NDArray[Any]:
    """Return an image file as these steps take it: colours, numbers, or named bands (height, width, channels).

    Raises:
        DataError: as `decode` and `read_whole`.
    """
    if steps.bands:
        return read_whole(source, steps, name or (str(source) if isinstance(source, Path) else "the image"))
    return decode(source, steps.channels, name, steps.raw).image


def read_whole(source: Path | bytes, steps: Preprocess, name: str) -> NDArray[Any]:
    """Return the bands that `steps` name, (height, width, bands), with scale and offset applied, NaN without data.

    Files that are no TIFF, such as `.npy`, hold the bands in the order of the network.

    Raises:
        DataError: not a raster, broken, without such a band, or too large.
    """
    if isinstance(source, Path):
        with_tags = source.suffix.lower() in {".vrt", ".jp2", ".img"} or tiff.is_tiff(_head(source))
        stack = open_stack(source.parent, source.name) if with_tags else None
    else:
        stack = stack_of_bytes(source, name) if tiff.is_tiff(source) else None
    if stack is None:
        return decode(source, steps.channels, name, raw=True, bands=steps.band_names).image
    _refuse_larger(stack.grid, steps, name)
    if stack.grid.height * stack.grid.width * max(1, steps.channels / 4) > MAX_PIXELS:
        raise DataError(
            f"{name} has {stack.grid.width:,} x {stack.grid.height:,} pixels, too many for one image. Predict it as a "
            "map: --out map.tif"
        )
    return stack.read(stack.grid.whole, steps.band_names)


def _refuse_larger(grid: Grid, steps: Preprocess, name: str) -> None:
    """Refuse (DataError) a scene for a network that reads windows: resized to one, it shows other things."""
    if steps.window and steps.zoom is None and max(grid.height, grid.width) > steps.window:
        raise DataError(
            f"{name} has {grid.width:,} x {grid.height:,} pixels, and the network answers for windows of "
            f"{steps.window} x {steps.window}. Predict it as a map (--out map.tif), or cut a window out of it."
        )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            return handle.read(4)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}. Check its name and its permissions."
        ) from error
