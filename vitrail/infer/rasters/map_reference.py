"""Areas with intervals: a map beside reference places, whose classes are known (Olofsson et al. 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.labels import shorten
from vitrail.data.rasters.open_files import rasterio
from vitrail.infer.rasters.map_table import BIASED, MapTable
from vitrail.metrics.area_estimate import Estimate, estimate_areas

A_MAP = 0.05
"""A reference that covers more of the map is told to be no sample."""


class Reference(NamedTuple):
    """Reference places on the grid of a map: (height, width), 0 where there is none, i + 1 for class i of `names`."""

    called: str
    classes: NDArray[Any]
    names: tuple[str, ...]


def refuse_unknown(reference: Reference, names: Sequence[str]) -> None:
    """Raise a DataError for a reference with classes that the map does not have, before the map is made."""
    known = {name.casefold() for name in names}
    unknown = [name for name in reference.names if name.casefold() not in known]
    if unknown:
        raise DataError(
            f"{reference.called} has the classes {shorten(unknown)}, the map has {shorten(names)}. Call them the same."
        )


def confusion(made: Path, reference: Reference, names: Sequence[str]) -> NDArray[np.int64]:
    """Return how often each mapped class (row) is which class of the reference (column): (k, k)."""
    many = len(names)
    place = {name.casefold(): i for i, name in enumerate(names)}
    to_map = np.array([0, *(place[name.casefold()] + 1 for name in reference.names)])
    found = np.zeros((many + 1) ** 2, np.int64)
    with rasterio().open(made) as opened:
        for _, view in opened.block_windows(1):
            rows, cols = view.toslices()
            truth = to_map[reference.classes[rows, cols]]
            if truth.any():
                mapped = opened.read(1, window=view).astype(np.int64)
                found += np.bincount((mapped * (many + 1) + truth).ravel(), minlength=len(found))
    return found.reshape(many + 1, many + 1)[1:, 1:]


def with_reference(table: MapTable, made: Path, reference: Reference | None) -> MapTable:
    """Return the table with estimated areas, their 95 % intervals and the accuracies of each class, or with a remark.

    Without reference places the remark says that pixels are no areas; with too few of them it says which are missing.
    """
    if reference is None:
        return replace(table, remarks=(*table.remarks, BIASED))
    try:
        found = estimate_areas(table.names, confusion(made, reference, table.names), table.mapped)
    except DataError as error:  # the map is made, and stays
        return replace(table, remarks=(*table.remarks, str(error), BIASED))
    unit = "pixels" if table.hectares is None else "hectares"
    columns = [
        {
            f"estimated_{unit}": _number(one.area.value),
            f"low_{unit}": _number(one.area.low),
            f"high_{unit}": _number(one.area.high),
            "users_accuracy": _share(one.users),
            "producers_accuracy": _share(one.producers),
        }
        for one in found.classes
    ]
    remark = (
        f"Estimated from the reference places of {reference.called} with 95 % intervals, if they were drawn at random "
        "within each mapped class."
    )
    places = np.count_nonzero(reference.classes)
    if places > A_MAP * sum(table.pixels):
        remark += (
            f" Its {places:,} places are {places / sum(table.pixels):.0%} of the map and no sample: intervals of "
            "pixels side by side are too narrow."
        )
    return replace(table, remarks=(*table.remarks, remark), estimated=tuple(columns))


def _number(value: float) -> float | None:
    return float(f"{value:.9g}") if np.isfinite(value) else None


def _share(one: Estimate) -> float | None:
    return round(one.value, 4) if np.isfinite(one.value) else None
