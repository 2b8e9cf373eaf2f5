"""The table of a map: pixels and hectares of each class, with intervals where a reference sample is given."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.data.rasters.grid import Grid
from vitrail.data.rasters.ground_areas import row_areas

BIASED = (
    "These are counts of pixels: mistakes of the map do not cancel out, so they are biased as areas. For areas with "
    "intervals give a reference sample: --reference points.gpkg"
)


@dataclass(frozen=True, slots=True)
class MapTable:
    """Pixels of each class, their hectares (None without a place on the Earth), remarks, and estimated columns."""

    names: tuple[str, ...]
    pixels: tuple[int, ...]
    hectares: tuple[float, ...] | None
    empty: int
    remarks: tuple[str, ...] = ()
    estimated: tuple[Mapping[str, Any], ...] = ()

    @property
    def mapped(self) -> tuple[float, ...]:
        """The mapped areas: hectares, or pixels without a place on the Earth."""
        return tuple(map(float, self.pixels)) if self.hectares is None else self.hectares

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each class: pixels, share of all mapped pixels, hectares."""
        total = max(1, sum(self.pixels))
        rows: list[dict[str, Any]] = []
        for i, (name, pixels) in enumerate(zip(self.names, self.pixels, strict=True)):
            row: dict[str, Any] = {"class": name, "pixels": pixels, "share": round(pixels / total, 6)}
            if self.hectares is not None:
                row["hectares"] = float(f"{self.hectares[i]:.9g}")
            rows.append({**row, **(self.estimated[i] if self.estimated else {})})
        return rows


def table_of(names: Sequence[str], counts: NDArray[np.int64], grid: Grid) -> MapTable:
    """Return the table of a map from the numbers of pixels in each row: (height, no data and classes)."""
    areas = row_areas(grid)
    pixels = counts.sum(0)
    hectares = None if areas.hectares is None else tuple((areas.hectares @ counts[:, 1:]).tolist())
    remarks = (areas.remark,) if areas.remark else ()
    return MapTable(tuple(names), tuple(pixels[1:].tolist()), hectares, int(pixels[0]), remarks)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows of a table as CSV."""
    head = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, head)
        writer.writeheader()
        writer.writerows(rows)
