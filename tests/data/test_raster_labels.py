"""Labels on the grid of a raster: polygons, points, and rasters of classes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyproj
import pytest
import shapely
from rasters import CRS, NORTH, PIXEL, WEST, box, geojson, layer, scene, write

from vitrail.core.errors import DataError, MissingExtraError, UnknownNameError
from vitrail.data.options import DEFAULTS, LayoutOptions
from vitrail.data.rasters.grid import Grid
from vitrail.data.rasters.labels import LabelMap, read_labels
from vitrail.data.rasters.stack import open_stack


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    scene(tmp_path / "scene.tif")
    return open_stack(tmp_path, "scene.tif").grid


def labels(path: Path, grid: Grid, column: str = "", options: LayoutOptions = DEFAULTS) -> LabelMap:
    return read_labels(path, column, grid, options)


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".fgb"])
def test_a_pixel_has_the_class_of_the_polygon_around_its_centre(
    tmp_path: Path, grid: Grid, suffix: str
) -> None:
    path = layer(
        tmp_path / f"t{suffix}", [box(2, 3, 5.4, 7.6), box(10, 3, 12, 4)], **{"class": ["wood", "bog"]}
    )
    found = labels(path, grid)
    wanted = np.zeros((60, 80), np.uint8)
    wanted[3:8, 2:5] = 2  # the centre of row 7 is at 7.5, that of column 5 at 5.5
    wanted[3:4, 10:12] = 1
    assert found.names == ("bog", "wood")
    np.testing.assert_array_equal(found.classes, wanted)
    assert not found.notes


def test_classes_stand_in_natural_order_and_numbers_are_whole(tmp_path: Path, grid: Grid) -> None:
    shapes = [box(i, 0, i + 1, 1) for i in range(3)]
    found = labels(layer(tmp_path / "t.gpkg", shapes, code=np.array([10.0, 2.0, np.nan])), grid)
    assert found.names == ("2", "10")
    assert found.classes[0, :3].tolist() == [2, 1, 0]
    assert "1 row of t.gpkg without a place or a class left aside." in found.notes


def test_the_column_is_named_or_found_or_asked_for(tmp_path: Path, grid: Grid) -> None:
    shapes = [box(0, 0, 1, 1), box(1, 0, 2, 1)]
    path = layer(tmp_path / "t.gpkg", shapes, surveyor=["Ann", "Bo"], soil=["peat", "sand"])
    with pytest.raises(DataError, match=r"surveyor, soil.*--labels t\.gpkg:COLUMN"):
        labels(path, grid)
    assert labels(path, grid, "SOIL").names == ("peat", "sand")
    with pytest.raises(UnknownNameError, match=r"'soils'\. Did you mean 'soil'"):
        labels(path, grid, "soils")
    one = layer(tmp_path / "one.gpkg", shapes, number=[7, 8], soil=["peat", "sand"])
    assert labels(one, grid).names == ("peat", "sand")


def test_a_geojson_in_degrees_is_brought_to_the_raster_and_it_is_said(tmp_path: Path, grid: Grid) -> None:
    to_degrees = pyproj.Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform
    shape = shapely.transform(box(20, 30, 24, 33), lambda xy: np.column_stack(to_degrees(xy[:, 0], xy[:, 1])))
    found = labels(geojson(tmp_path / "t.geojson", [shape], ["bog"]), grid)
    assert np.argwhere(found.classes).min(0).tolist() == [30, 20]
    assert np.argwhere(found.classes).max(0).tolist() == [32, 23]
    assert found.notes == ("t.geojson is brought from WGS 84 to WGS 84 / UTM zone 20N, that of the raster.",)


def test_where_polygons_of_two_classes_overlap_there_is_no_label(tmp_path: Path, grid: Grid) -> None:
    shapes = [box(0, 0, 4, 4), box(2, 2, 6, 6), box(3, 0, 5, 1)]
    found = labels(layer(tmp_path / "t.gpkg", shapes, name=["a", "b", "a"]), grid)
    assert (found.classes[2:4, 2:4] == 0).all()
    assert (found.classes > 0).sum() == 16 + 16 - 8 + 1
    assert "4 pixels of t.gpkg with two classes left out" in found.notes[0]


def test_polygons_without_a_centre_and_outside_are_counted(tmp_path: Path, grid: Grid) -> None:
    shapes = [box(0, 0, 4, 4), box(8.6, 8.6, 9.4, 9.4), box(-20, 0, -10, 5)]
    found = labels(layer(tmp_path / "t.gpkg", shapes, name=["a", "b", "b"]), grid)
    assert found.notes == (
        "1 place of t.gpkg outside the raster left aside.",
        "1 polygon of t.gpkg is so small that no centre of a pixel lies inside.",
    )


def test_points_label_their_pixel_unless_they_disagree(tmp_path: Path, grid: Grid) -> None:
    where = [(3.5, 2.1), (3.2, 2.9), (7.5, 7.5), (7.6, 7.6)]
    points = [shapely.Point(WEST + x * PIXEL, NORTH - y * PIXEL) for x, y in where]
    found = labels(layer(tmp_path / "t.gpkg", points, type=["a", "a", "a", "b"]), grid)
    assert np.argwhere(found.classes).tolist() == [[2, 3]]
    assert "1 pixel of t.gpkg with two classes left out" in found.notes[0]


def test_tables_hold_points_in_coordinates_or_degrees(tmp_path: Path, grid: Grid) -> None:
    table = tmp_path / "points.csv"
    table.write_text(
        f"X,Y,klass\n{WEST + 55},{NORTH - 25},bog\n{WEST + 205},{NORTH - 25},\n", encoding="utf-8"
    )
    assert np.argwhere(labels(table, grid).classes).tolist() == [[2, 5]]
    to_degrees = pyproj.Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform
    x, y = to_degrees(WEST + 55, NORTH - 25)
    table.write_text(f"label;lat;lon\nbog;{y};{x}\n", encoding="utf-8")
    assert np.argwhere(labels(table, grid).classes).tolist() == [[2, 5]]
    table.write_text("label,place\nbog,here\n", encoding="utf-8")
    with pytest.raises(DataError, match="no columns of places"):
        labels(table, grid)


def test_labels_beside_the_scene_say_both_places(tmp_path: Path, grid: Grid) -> None:
    path = layer(tmp_path / "t.gpkg", [box(900, 0, 910, 5)], name=["a"])
    with pytest.raises(
        DataError, match=r"labels at x 309,000 to 309,100, y .*raster at x 300,000 to 300,800.*Check"
    ):
        labels(path, grid)
    far = write(tmp_path / "far.tif", np.ones((1, 60, 80), np.uint8), shift=9_000)
    with pytest.raises(DataError, match=r"labels at x 309,000 to 309,800.*raster at x 300,000 to 300,800"):
        labels(far, grid)
    with pytest.raises(DataError, match="holds the centre of a pixel"):
        labels(layer(tmp_path / "s.gpkg", [box(8.6, 8.6, 9.4, 9.4)], name=["a"]), grid)


def test_a_layer_without_crs_and_a_raster_without_place_are_refused(tmp_path: Path, grid: Grid) -> None:
    path = layer(tmp_path / "t.gpkg", [box(0, 0, 4, 4)], crs=None, name=["a"])
    with pytest.raises(DataError, match=r"does not say its coordinate system.*Assign it"):
        labels(path, grid)
    write(tmp_path / "photo.tif", np.ones((1, 60, 80), np.uint8), crs=None)
    bare = open_stack(tmp_path, "photo.tif").grid
    with pytest.raises(DataError, match="raster of 80 x 60 pixels"):
        labels(path, bare)
    same = write(tmp_path / "same.tif", np.full((1, 60, 80), 3, np.uint8), crs=None)
    assert labels(same, bare).names == ("3",)
    other = write(tmp_path / "other.tif", np.full((1, 60, 70), 3, np.uint8), crs=None)
    with pytest.raises(DataError, match="70 x 60 pixels and the raster 80 x 60"):
        labels(other, bare)


def test_values_of_a_raster_are_named_by_tags_or_by_the_file_beside_it(tmp_path: Path, grid: Grid) -> None:
    values = np.zeros((1, 60, 80), np.uint8)
    values[0, 0, :4] = 1, 2, 7, 200
    path = write(tmp_path / "l.tif", values, nodata=200, class_names='{"1": "wood", "2": "bog"}')
    found = labels(path, grid)
    assert found.names == ("7", "bog", "wood")
    assert found.classes[0, :5].tolist() == [3, 2, 1, 0, 0]
    assert found.notes == ("l.tif does not name the values 7: the classes are called so.",)
    bare = write(tmp_path / "b.tif", values, nodata=200)
    (tmp_path / "b.tif.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><GDALRasterAttributeTable><FieldDefn index='0'><Name>Value</Name>"
        "</FieldDefn><FieldDefn index='1'><Name>Class_Name</Name></FieldDefn>"
        + "".join(f"<Row index='{i}'><F>{i}</F><F>kind {i}</F></Row>" for i in (1, 2, 7))
        + "</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>",
        encoding="utf-8",
    )
    assert labels(bare, grid).names == ("kind 1", "kind 2", "kind 7")


def test_a_raster_on_another_grid_is_resampled_to_the_nearest(tmp_path: Path, grid: Grid) -> None:
    coarse = np.zeros((1, 30, 40), np.uint8)
    coarse[0, 5, 6] = 4
    found = labels(write(tmp_path / "c.tif", coarse, pixel=20.0), grid)
    assert np.argwhere(found.classes).tolist() == [[10, 12], [10, 13], [11, 12], [11, 13]]
    assert "resampled to that of the raster (nearest)" in found.notes[0]


def test_fractions_are_no_classes_and_a_broken_file_is_named(tmp_path: Path, grid: Grid) -> None:
    with pytest.raises(DataError, match=r"f\.tif holds fractions"):
        labels(write(tmp_path / "f.tif", np.full((1, 60, 80), 0.5, np.float32)), grid)
    path = tmp_path / "t.gpkg"
    path.write_bytes(b"SQLite format 3\0 and no more")
    with pytest.raises(DataError, match=r"t\.gpkg cannot be read"):
        labels(path, grid)


def test_polygons_may_state_their_split(tmp_path: Path, grid: Grid) -> None:
    shapes = [box(0, 0, 4, 4), box(10, 0, 14, 4), box(20, 0, 24, 4)]
    columns = {"name": ["a", "b", "b"], "split": ["train", "test", ""]}
    path = layer(tmp_path / "t.gpkg", shapes, **columns)
    found = labels(path, grid)
    assert found.splits is not None
    assert [int(found.splits[0, x]) for x in (0, 10, 20)] == [1, 3, 0]
    assert labels(path, grid, options=LayoutOptions(splits="none")).splits is None


def test_a_missing_library_is_named_with_the_way_to_it(
    tmp_path: Path, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = layer(tmp_path / "t.gpkg", [box(0, 0, 4, 4)], name=["a"])

    monkeypatch.setitem(sys.modules, "pyogrio.raw", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vitrail\[raster\]'"):
        labels(path, grid)
