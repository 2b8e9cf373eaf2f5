"""Windows of one or several raster files as named bands on one grid."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

from vitrail.core.errors import DataError, UsageError
from vitrail.data.decisions import history_path
from vitrail.data.open_image import load
from vitrail.data.parts import raster_part
from vitrail.data.preprocess import Preprocess
from vitrail.data.rasters.band_names import name_of_file
from vitrail.data.rasters.bands import Band
from vitrail.data.rasters.open_files import dataset_of
from vitrail.data.rasters.sources import common, joined, raster_files, short_name, words_of
from vitrail.data.rasters.stack import open_stack, stack_of
from vitrail.data.rasters.whole_file import read_whole

WEST, NORTH = 300_000.0, 5_000_000.0


def write(
    path: Path, values: np.ndarray, pixel: float = 10.0, crs: str | None = "EPSG:32620", **tags
) -> Path:
    """Write bands (bands, height, width); `tags` are attributes of the data set, such as descriptions."""
    where = from_origin(tags.pop("west", WEST), tags.pop("north", NORTH), pixel, pixel)
    form = {
        "driver": "GTiff",
        "count": len(values),
        "dtype": values.dtype,
        "nodata": tags.pop("nodata", None),
    }
    place = {"crs": crs, "transform": where} if crs else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", height=values.shape[1], width=values.shape[2], **form, **place) as file:
            file.write(values)
            for name, value in tags.items():
                setattr(file, name, value)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    ten = draw.integers(1, 10_000, (3, 20, 30)).astype(np.uint16)
    ten[:, 5, 7] = 0
    write(
        tmp_path / "ten.tif",
        ten,
        nodata=0,
        descriptions=("B02", "B03", "B04"),
        scales=(1e-4,) * 3,
        units=("reflectance",) * 3,
    )
    twenty = np.broadcast_to(np.arange(15, dtype=np.float32), (1, 10, 15)).copy()
    write(tmp_path / "twenty.tif", twenty, 20.0, descriptions=("B11",))
    return tmp_path


def test_files_of_other_pixels_lie_on_the_finest_grid(scene: Path):
    stack = open_stack(scene, "twenty.tif|ten.tif")
    assert stack.names == ("B11", "B02", "B03", "B04")
    assert stack.bands[1] == Band("B02", "reflectance")
    assert (stack.grid.height, stack.grid.width, stack.grid.pixel) == (20, 30, (10.0, 10.0))
    assert "twenty.tif is resampled" in stack.notes[0]
    column = stack.read((4, 4, 14, 5), ("B11",))[0, :, 0]
    np.testing.assert_allclose(np.diff(column), 0.5, atol=1e-5)  # a slope of 1 in 20 m


def test_scale_gaps_and_the_outside(scene: Path):
    values = open_stack(scene, "ten.tif").read((-2, -3, 9, 8))
    with rasterio.open(scene / "ten.tif") as file:
        stored = file.read()
    assert values.shape == (11, 11, 3)
    assert np.isnan(values[:3]).all()
    assert np.isnan(values[:, :2]).all()
    assert np.isnan(values[8, 9]).all()
    np.testing.assert_allclose(values[3, 2], stored[:, 0, 0] * 1e-4, rtol=1e-6)


def test_bands_are_read_by_name_in_any_order(scene: Path):
    stack = open_stack(scene, "ten.tif")
    window = (0, 0, 4, 4)
    np.testing.assert_array_equal(stack.read(window, ("b04", "B02")), stack.read(window)[..., [2, 0]])
    with pytest.raises(DataError, match=r"lacks the band B8A; it holds B02, B03, B04"):
        stack.read(window, ("B02", "B8A"))


def test_rows_of_a_raster(scene: Path):
    part = raster_part((-1, 0, 7, 8))
    found = load(scene, "ten.tif|twenty.tif", 2, part, raw=True, bands=("B11", "B04"))
    assert found.image.shape == (8, 8, 2)
    assert found.bands == ("B11", "B04")
    shown = load(scene, "ten.tif", part=part)
    assert shown.image.shape == (8, 8, 3)
    assert shown.image.dtype == np.uint8


def test_other_coordinates_are_reprojected(scene: Path):
    from rasterio.warp import transform_bounds

    with rasterio.open(scene / "ten.tif") as file:
        west, south, east, north = transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    pixel = (east - west) / 20
    rows = int((north - south) / pixel) + 3
    write(
        scene / "degrees.tif",
        np.full((1, rows, 22), 3.0, np.float32),
        pixel,
        "EPSG:4326",
        west=west - pixel,
        north=north + pixel,
    )
    stack = open_stack(scene, "ten.tif|degrees.tif")
    assert "EPSG:4326" in stack.notes[0]
    np.testing.assert_allclose(stack.read(stack.grid.whole)[..., 3], 3.0, rtol=1e-5)


def test_files_that_share_no_place_are_refused(scene: Path):
    write(scene / "away.tif", np.ones((1, 9, 9), np.float32), 20.0, west=WEST + 50_000)
    with pytest.raises(DataError, match=r"away\.tif \(EPSG:32620\) and the file .* share no place"):
        open_stack(scene, "ten.tif|away.tif")


def test_files_without_a_place_need_the_same_pixels(scene: Path):
    write(scene / "plain.tif", np.ones((1, 9, 9), np.float32), crs=None)
    with pytest.raises(DataError, match="without a place on the Earth"):
        open_stack(scene, "ten.tif|plain.tif")


def test_equal_names_get_the_name_of_their_file(scene: Path):
    write(scene / "again.tif", np.ones((1, 20, 30), np.float32), descriptions=("B02",))
    assert open_stack(scene, "ten.tif|again.tif").names == ("ten B02", "B03", "B04", "again B02")


def test_a_truncated_file_is_named_with_the_place(scene: Path):
    path = write(scene / "cut.tif", np.random.default_rng(1).random((1, 400, 400)).astype(np.float32))
    path.write_bytes(path.read_bytes()[:300_000])
    stack = open_stack(scene, "cut.tif")
    assert np.isfinite(stack.read((0, 0, 8, 8))).all()
    with pytest.raises(DataError, match=r"cut.tif is broken at pixels 390,390 to 398,398"):
        stack.read((390, 390, 398, 398))


def test_what_is_no_raster_is_refused(tmp_path: Path):
    (tmp_path / "note.tif").write_text("no raster")
    with pytest.raises(DataError, match=r"note\.tif is no raster"):
        open_stack(tmp_path, "note.tif")
    with pytest.raises(DataError, match=r"gone\.tif"):
        open_stack(tmp_path, "gone.tif")


@pytest.mark.parametrize(
    ("file", "band"),
    [
        ("T20TLR_20190813T150719_B02_10m.jp2", "B02"),
        ("T20TLR_20190813T150719_B8A.jp2", "B8A"),
        ("s1a-iw-grd-vv-20190813t102030.tiff", "VV"),
        ("LC08_L2SP_008029_SR_B5.TIF", "SR_B5"),
        ("dem.tif", ""),
    ],
)
def test_names_of_files_state_bands(file: str, band: str):
    assert name_of_file(file) == band


def test_several_words_are_one_source(scene: Path):
    source = joined(str(scene / "ten.tif"), (str(scene / "twenty.tif"),))
    assert common(raster_files(source)) == (scene, {"ten.tif": "ten.tif", "twenty.tif": "twenty.tif"})
    with pytest.raises(UsageError, match=r"photos is no raster"):
        joined("photos", ("ten.tif",))
    with pytest.raises(DataError, match="is named twice"):
        common(raster_files(joined(str(scene / "ten.tif"), (str(scene / "ten.tif"),))))


def test_a_file_given_for_prediction_is_read_by_names(scene: Path):
    bands = (Band("B04"), Band("B02"))
    steps = Preprocess((8, 8), "squash", 1.0, (0.0, 0.0), (1.0, 1.0), 2, scale=1.0, bands=bands)
    found = read_whole(scene / "ten.tif", steps, "ten.tif")
    np.testing.assert_array_equal(found, read_whole((scene / "ten.tif").read_bytes(), steps, "ten.tif"))
    with rasterio.open(scene / "ten.tif") as file:
        np.testing.assert_allclose(found[0, 0], file.read()[[2, 0], 0, 0] * 1e-4, rtol=1e-6)
    np.save(scene / "plain.npy", found)
    np.testing.assert_array_equal(read_whole(scene / "plain.npy", steps, "plain.npy"), found)


def test_bands_stand_in_the_model_file_s_steps():
    bands = (Band("VV", "dB", -22.5, -4.0), Band("B02"))
    steps = Preprocess(
        (8, 8), "squash", 1.0, (0.0, 0.0), (1.0, 1.0), 2, scale=1.0, bands=bands, window=8, pixel=10.0
    )
    assert Preprocess.from_dict(steps.to_dict()) == steps
    assert steps.raw


def test_colours_of_a_file_name_its_bands(tmp_path: Path):
    write(
        tmp_path / "rgb.tif",
        np.ones((3, 9, 9), np.uint8),
        colorinterp=[ColorInterp.red, ColorInterp.green, ColorInterp.blue],
    )
    assert open_stack(tmp_path, "rgb.tif").names == ("red", "green", "blue")


def test_many_small_windows_are_cut_out_of_memory_and_equal(scene: Path):
    draw = np.random.default_rng(3)
    windows = [(x, y, x + 7, y + 5) for x, y in draw.integers(-9, 32, (300, 2)).tolist()]
    stack = open_stack(scene, "twenty.tif|ten.tif")
    names = ("B04", "B11")
    for _ in range(300):
        stack.read((0, 0, 1, 1))
    held = [stack.read(window, names) for window in windows]
    fresh = stack_of([(scene / one, dataset_of(scene / one)) for one in ("twenty.tif", "ten.tif")])
    for window, values in zip(windows, held, strict=True):
        np.testing.assert_array_equal(values, fresh.read(window, names))


def test_a_bar_in_another_name_stays_in_it(tmp_path: Path):
    folder = tmp_path / "mine|yours"
    folder.mkdir()
    assert words_of(folder) == [str(folder)]
    assert raster_files(folder) == ()
    assert short_name(folder) == "mine|yours"
    assert history_path(folder).name == "mine|yours.vitrail.jsonl"
    raster = write(tmp_path / "one | two.tif", np.ones((1, 9, 9), np.float32))
    with pytest.raises(DataError, match="Rename it"):
        raster_files(raster)
