"""Read images from rows of a larger file: npz arrays, Arrow and Parquet tables, slices of a NIfTI volume."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError, MissingExtraError


def read_item(file: Path, inside: str, raw: bool = False) -> bytes:
    """Return one row as the bytes of an image file; plain arrays become `.npy` bytes.

    With `raw`, or as `raw!40`, the slice of a volume has its own units, without an intensity window; `raw-x!40` is
    mirrored horizontally and `raw-y!40` vertically, to match the slices of a DICOM series.

    Raises:
        DataError: there is no such row, or the file is broken.
    """
    column, _, number = inside.rpartition("!")
    try:
        if file.suffix == ".npz":
            return as_npy(npz(file)[column][int(number)])
        if file.suffix in {".parquet", ".arrow"}:
            return arrow_cell(file, column, int(number))
        if file.name.endswith((".nii", ".nii.gz")):
            from vitrail.data import medical

            word, _, mirrored = column.partition("-")
            pixels = medical.slice_of(file, int(number), raw or word == "raw")
            pixels = pixels[:, ::-1] if "x" in mirrored else pixels
            return as_npy(pixels[::-1] if "y" in mirrored else pixels)
    except (ValueError, KeyError, IndexError) as error:
        raise DataError(f"{file.name} has no image called {inside}. Check the data again.") from error
    raise DataError(f"{file.name} is no file that holds several images. Check the data again.")


def npz(file: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file, cached in memory; arrays that need pickle are refused.

    Raises:
        DataError: the file is broken or contains Python objects.
    """
    return _npz(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _npz(file: Path, changed: int) -> dict[str, NDArray[Any]]:
    try:
        with np.load(file, allow_pickle=False) as opened:
            return {name: opened[name] for name in opened.files}
    except Exception as error:  # a broken zip can raise any exception
        raise DataError(
            f"{file} cannot be read ({error}). Save plain arrays: numpy.savez(file, images=..., labels=...)."
        ) from error


def as_npy(array: NDArray[Any]) -> bytes:
    """Return an array as the bytes of an .npy file."""
    data = BytesIO()
    np.save(data, array, allow_pickle=False)
    return data.getvalue()


def arrow_table(file: Path) -> Any:
    """Return an Arrow file as a memory-mapped table, or an opened Parquet file.

    Raises:
        DataError: pyarrow is not installed, or the file is broken.
    """
    return _arrow(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _arrow(file: Path, changed: int) -> Any:
    try:
        pa: Any = import_module("pyarrow")
        pq: Any = import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtraError(
            f"{file.name} needs pyarrow to be read: pip install 'vitrail[arrow]'."
        ) from error
    try:
        if file.suffix == ".parquet":
            return pq.ParquetFile(file, memory_map=True)
        with pa.memory_map(str(file)) as mapped:
            start = mapped.read(6)
        opened = pa.memory_map(str(file))
        return (pa.ipc.open_file(opened) if start == b"ARROW1" else pa.ipc.open_stream(opened)).read_all()
    except Exception as error:  # for a broken file Arrow raises its own and Python's exceptions
        raise DataError(f"{file} is broken ({error}). Save the data set again.") from error


def arrow_cell(file: Path, column: str, number: int) -> bytes:
    """Return the image bytes of one cell of an image column.

    Raises:
        DataError: the cell is empty, or contains a file name instead of an image.
    """
    table = arrow_table(file)
    if file.suffix == ".parquet":
        group, within = _row_group(table, number)
        cell = _cells(file, file.stat().st_mtime_ns, group, column)[within].as_py()
    else:
        cell = table.column(column)[number].as_py()
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes):
        raise DataError(
            f"{file.name} holds no image in row {number}. Save the data set with its images inside."
        )
    return data


def _row_group(opened: Any, number: int) -> tuple[int, int]:
    for group in range(opened.num_row_groups):
        rows = opened.metadata.row_group(group).num_rows
        if number < rows:
            return group, number
        number -= rows
    raise IndexError(number)


@lru_cache(maxsize=4)
def _cells(file: Path, changed: int, group: int, column: str) -> Any:
    """Return a column of a row group, cached; without Arrow's threads, which do not survive a fork of a data loader."""
    return arrow_table(file).read_row_group(group, columns=[column], use_threads=False).column(column)
