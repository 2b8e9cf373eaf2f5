"""Findings of a check about rasters: bands and their units, the grid, what labels cover, and leaks in space."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.data.findings import Finding
from vitrail.data.labels import count, shorten
from vitrail.data.manifest import Row
from vitrail.data.rasters.facts import RasterFacts
from vitrail.data.rasters.grid import Grid, Window
from vitrail.data.rasters.open_files import rasterio
from vitrail.data.rasters.read_windows import read_windows
from vitrail.data.rasters.space import in_space

_SIDE, _ACROSS = 64, 12  # pixels of a window, and windows in each direction, that are read for the ranges
_RADAR = re.compile(r"\b(VV|VH|HH|HV)\b|(?:^|_)(VV|VH|HH|HV)(?:_|$)", re.IGNORECASE)
_OPTICAL = re.compile(r"\b(B\d\d?|B8A|SR_B\d)\b|red|green|blue|nir|swir", re.IGNORECASE)
_LINEAR, _DECIBEL = 1.0, 0.0
_COUNTS = 100.0  # reflectance above it is stored as whole numbers
_SHOWN = 16


class _Range(NamedTuple):
    """The values of a band in samples of the raster: percentiles 1, 50 and 99, least, largest, share without data."""

    name: str
    unit: str
    low: float
    middle: float
    high: float
    least: float
    most: float
    missing: float
    whole: bool


def of_raster(facts: RasterFacts, rows: Sequence[Row], root: Path, *, single: bool) -> Iterator[Finding]:
    """Yield the findings about a raster; `single` tells that each row has one class."""
    ranges = _ranges(facts, root)
    yield _grid(facts)
    yield _bands(ranges)
    yield from _units(ranges)
    if facts.covered:
        yield _covered(facts)
    if single and (found := in_space(facts, rows, root)) is not None:
        yield found


def _ranges(facts: RasterFacts, root: Path) -> list[_Range]:
    found = [one.values for one in read_windows(root, facts.path, _samples(facts.grid))]
    each = [one.reshape(-1, len(facts.bands)) for one in found if one is not None]
    if not each:
        return []
    values = np.concatenate(each)
    return [_range(band.name, band.unit, values[:, i]) for i, band in enumerate(facts.bands)]


def _range(name: str, unit: str, values: NDArray[np.float32]) -> _Range:
    known = values[~np.isnan(values)].astype(np.float64)
    missing = 1 - len(known) / max(1, len(values))
    if not len(known):
        none = float("nan")
        return _Range(name, unit, none, none, none, none, none, missing, False)
    low, middle, high = np.percentile(known, (1, 50, 99)).tolist()
    whole = bool((known == np.rint(known)).all())
    return _Range(name, unit, low, middle, high, float(known.min()), float(known.max()), missing, whole)


def _samples(grid: Grid) -> list[Window]:
    """Return windows at even distances, or the whole of a small raster."""
    if grid.height * grid.width <= (_SIDE * _ACROSS) ** 2:
        return [grid.whole]
    lefts = np.linspace(0, max(0, grid.width - _SIDE), _ACROSS).astype(int).tolist()
    tops = np.linspace(0, max(0, grid.height - _SIDE), _ACROSS).astype(int).tolist()
    return [
        (left, top, min(left + _SIDE, grid.width), min(top + _SIDE, grid.height))
        for top in tops
        for left in lefts
    ]


def _bands(ranges: Sequence[_Range]) -> Finding:
    shown = shorten(
        (
            f"{one.name} {f'in {one.unit} ' * bool(one.unit)}{one.low:.4g} to {one.high:.4g}"
            + f" ({one.missing:.1%} without data)" * (one.missing > 0.0005)
            for one in ranges
        ),
        _SHOWN,
    )
    table = tuple(
        {
            "band": one.name,
            "unit": one.unit,
            "1 %": _plain(one.low),
            "99 %": _plain(one.high),
            "no data": _plain(one.missing),
        }
        for one in ranges
    )
    return Finding("bands", f"{count(len(ranges), 'band')}, values from 1 % to 99 %: {shown}.", table=table)


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.4g}")


def _grid(facts: RasterFacts) -> Finding:
    grid, size = facts.grid, f"{facts.grid.width:,} x {facts.grid.height:,} pixels"
    if not grid.located:
        text = f"{size} without a place on the Earth: maps of it have none either, and areas are in pixels."
        return Finding("grid", text)
    crs = rasterio().crs.CRS.from_wkt(grid.crs)
    code = f"EPSG:{crs.to_epsg()}" if crs.to_epsg() else crs.to_wkt().partition('"')[2].partition('"')[0]
    area = grid.width * grid.height * _hectares(facts)
    metres = f" of {facts.pixel:.6g} m" if facts.pixel else ""
    return Finding("grid", f"{size}{metres} in {code}" + (f", {area:,.0f} ha." if facts.pixel else "."))


def _hectares(facts: RasterFacts) -> float:
    return facts.pixel**2 / 10_000


def _covered(facts: RasterFacts) -> Finding:
    """Report how many pixels each class has; hectares where the size of a pixel is known."""
    total = sum(number for _, number in facts.covered)
    share = total / (facts.grid.height * facts.grid.width)
    table = tuple(
        {"class": name, "pixels": number, "share": round(number / total, 6)}
        | ({"hectares": round(number * _hectares(facts), 2)} if facts.pixel else {})
        for name, number in facts.covered
    )
    named = shorten(
        (
            f"{name} {number:,} ({number / total:.1%}"
            + (f", {number * _hectares(facts):,.1f} ha)" if facts.pixel else ")")
            for name, number in facts.covered
        ),
        12,
    )
    return Finding(
        "covered", f"{total:,} pixels have a label, {share:.1%} of the raster: {named}.", table=table
    )


def _units(ranges: Sequence[_Range]) -> Iterator[Finding]:
    """Report units that look wrong, or are not stated: radar in dB or linear, reflectance as whole numbers."""
    radar = [one for one in ranges if _RADAR.search(one.name) and not np.isnan(one.middle)]
    units = {one.name: _radar_unit(one) for one in radar}
    wrong = [
        f"{one.name} says {one.unit}, and its values look {_looks(units[one.name])}"
        for one in radar
        if _stated(one.unit) not in {"", units[one.name]} and units[one.name]
    ]
    known = {unit for unit in units.values() if unit}
    if wrong:
        yield Finding("unit", f"{shorten(wrong)}. Correct the unit, or convert the values.", grave=True)
    elif len(known) > 1:
        said = shorten((f"{name} looks {_looks(unit)}" for name, unit in units.items() if unit), 4)
        yield Finding("unit", f"Radar bands differ in their unit: {said}. Convert one of them.", grave=True)
    elif known and not any(one.unit for one in radar):
        unit = known.pop()
        yield Finding(
            "unit",
            f"{shorten(units)} {'looks' if len(units) == 1 else 'look'} {_looks(unit)}; no unit is stated. Predict "
            "rasters in the same unit only.",
        )
    counts = [
        one for one in ranges
        if one.whole and not one.unit and one.most > _COUNTS and _OPTICAL.search(one.name) and one.least >= 0
    ]  # fmt: skip
    if counts:
        most = max(one.most for one in counts)
        text = f"{16 if most > 255 else 8} bits: values up to {most:,.0f}; they are taken as they are, without a scale."
        yield Finding("scale", text)


def _radar_unit(one: _Range) -> str:
    if one.least > 0 and one.middle < _LINEAR:
        return "linear"
    return "dB" if one.middle < _DECIBEL else ""


def _looks(unit: str) -> str:
    return "like dB" if unit == "dB" else "linear"


def _stated(unit: str) -> str:
    low = unit.casefold()
    return (
        "dB" if low in {"db", "decibel", "decibels"} else "linear" if low in {"linear", "power", "1"} else ""
    )
