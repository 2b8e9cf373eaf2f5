"""Small rasters and layers for tests."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyogrio.raw
import rasterio
import shapely
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

WEST, NORTH, PIXEL = 300_000.0, 5_000_000.0, 10.0
CRS = "EPSG:32620"


def write(
    path: Path, values: np.ndarray, *, crs: str | None = CRS, pixel: float = PIXEL, nodata: float | None = None,
    names: Sequence[str] = (), units: Sequence[str] = (), shift: float = 0.0, **tags: str,
) -> Path:  # fmt: skip
    """Write bands (bands, height, width) as a GeoTIFF; `shift` moves it east, in metres."""
    place = {"crs": crs, "transform": from_origin(WEST + shift, NORTH, pixel, pixel)} if crs else {}
    form = {"driver": "GTiff", "count": len(values), "dtype": values.dtype, "nodata": nodata}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", height=values.shape[1], width=values.shape[2], **form, **place) as file:
            file.update_tags(**tags)
            for i, unit in enumerate(units, 1):
                file.set_band_unit(i, unit)
            for i, name in enumerate(names, 1):
                file.set_band_description(i, name)
            file.write(values)  # after the names, so that the directory comes first
    return path


def scene(path: Path, height: int = 60, width: int = 80, bands: int = 3) -> Path:
    """Write a scene of random bands B01, B02, … without missing data."""
    draw = np.random.default_rng(7)
    values = draw.integers(1, 9_000, (bands, height, width)).astype(np.uint16)
    return write(path, values, nodata=0, names=[f"B{i:02}" for i in range(1, bands + 1)])


def box(left: float, top: float, right: float, bottom: float) -> shapely.Geometry:
    """Return the rectangle of these pixels in the coordinates of the scene."""
    return shapely.box(WEST + left * PIXEL, NORTH - bottom * PIXEL, WEST + right * PIXEL, NORTH - top * PIXEL)


def layer(
    path: Path, shapes: Sequence[shapely.Geometry], crs: str | None = CRS, **columns: Sequence[object]
) -> Path:
    """Write shapes with columns as a vector file; its format is that of the suffix."""
    fields = [np.array(cells, object if isinstance(cells[0], str) else None) for cells in columns.values()]
    kinds = {shapely.get_type_id(one) for one in shapes}
    kind = {3: "Polygon", 0: "Point", 1: "LineString"}[kinds.pop()] if len(kinds) == 1 else "Unknown"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a layer without CRS is meant
        pyogrio.raw.write(
            path, shapely.to_wkb(np.array(shapes, object)), fields, list(columns), crs=crs, geometry_type=kind
        )
    return path


def geojson(path: Path, shapes: Sequence[shapely.Geometry], classes: Sequence[str]) -> Path:
    """Write shapes in degrees as GeoJSON."""
    features = [
        {"type": "Feature", "properties": {"class": name}, "geometry": json.loads(shapely.to_geojson(one))}
        for one, name in zip(shapes, classes, strict=True)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path
