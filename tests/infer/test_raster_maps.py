"""Maps of rasters: what the files hold, that tiles do not show, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from raster_scenes import BANDS, LABELS, UTM, model, steps, values, vit, write
from rasterio.transform import Affine, from_origin

from vitrail.core.errors import DataError, RunError, SettingError
from vitrail.data.rasters.bands import Band
from vitrail.data.rasters.grid import Grid
from vitrail.data.rasters.ground_areas import pixel_side, row_areas
from vitrail.data.rasters.stack import open_stack
from vitrail.infer.predictor import Predictor, Request
from vitrail.infer.rasters.band_checks import Seen, other_unit
from vitrail.infer.rasters.make_map import MapOptions, Raster, make_map, numbers_of
from vitrail.infer.rasters.map_reference import Reference, confusion, refuse_unknown, with_reference
from vitrail.infer.rasters.segment_tiles import BlendedWindows, ExactTiles, margin_of
from vitrail.infer.rasters.tiles import TileAnswer, inner
from vitrail.infer.rasters.window_classes import WindowClasses, inputs_of
from vitrail.models.factory import create_encoder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def predictor(tmp_path):
    return Predictor(model(tmp_path, vit(), steps()))


def mapped(predictor, path, out, **options):
    said = []
    found = make_map(
        predictor, Raster(open_stack(path.parent, path.name), path.name), out, MapOptions(**options), say=said.append
    )  # fmt: skip
    return found, said


def test_the_map_lies_where_the_raster_lies_and_says_what_it_shows(tmp_path, predictor):
    from rio_cogeo.cogeo import cog_validate

    path = write(tmp_path / "big.tif", values(23, 31))
    found, _ = mapped(predictor, path, tmp_path / "map.tif", each_class=True)
    for name in ("map", "map-probability", "map-entropy"):
        made = tmp_path / f"{name}.tif"
        assert cog_validate(str(made))[0]
        with rasterio.open(path) as source, rasterio.open(made) as opened:
            assert (opened.crs, opened.transform, opened.shape) == (
                source.crs,
                source.transform,
                source.shape,
            )
            assert opened.tags()["vitrail_model"] == "random"
            assert len(opened.tags()["vitrail_model_sha256"]) == 64
    with rasterio.open(tmp_path / "map.tif") as opened:
        numbers, colours = opened.read(1), opened.colormap(1)
        assert (opened.nodata, opened.dtypes) == (0, ("uint8",))
        assert colours[0][3] == 0
        assert len({colours[i] for i in (1, 2, 3)}) == 3
    with rasterio.open(tmp_path / "map-probability.tif") as opened:
        assert opened.descriptions == ("probability of the class", *LABELS)
        top, *each = opened.read().astype(float) * opened.scales[0]
    assert np.abs(np.sum(each, 0) - 1).max() < 1e-4
    assert (np.argmax(each, 0) + 1 == numbers)[np.ptp(each, 0) > 1e-4].all()
    assert np.abs(np.max(each, 0) - top).max() < 1e-4
    assert found.pixels == tuple(np.bincount(numbers.ravel(), minlength=4)[1:].tolist())
    assert sum(found.hectares) == pytest.approx(23 * 31 * 0.01)
    with (tmp_path / "map.png").open("rb") as file:
        assert file.read(4) == b"\x89PNG"


def test_gdal_reads_the_names_of_the_classes(tmp_path, predictor):
    import rasterio.shutil

    path = write(tmp_path / "big.tif", values(9, 9))
    mapped(predictor, path, tmp_path / "map.tif")
    rasterio.shutil.copy(tmp_path / "map.tif", tmp_path / "seen.vrt", driver="VRT")
    text = (tmp_path / "seen.vrt").read_text()
    assert [f"<Category>{name}</Category>" in text for name in ("no data", *LABELS)] == [True] * 4


@pytest.mark.parametrize(("window", "size"), [(8, 8), (7, 7), (8, 16), (6, 16)])
def test_a_pixel_has_the_class_of_the_window_around_it(tmp_path, window, size):
    preprocess = steps(window, size)
    known = size == window
    predictor = Predictor(model(tmp_path, vit(size, 4 if size % 4 == 0 else 7), preprocess))
    image = values(20, 17)
    image[3:5, 4:9] = np.nan
    image[10, 10, 0] = np.nan
    path = write(tmp_path / "big.tif", image)
    mapped(predictor, path, tmp_path / "map.tif", each_class=True)
    with rasterio.open(tmp_path / "map-probability.tif") as opened:
        found = opened.read().astype(float) * opened.scales[0]
    before = window // 2
    padded = np.pad(image, ((before, window), (before, window), (0, 0)), constant_values=np.nan)
    for row, col in ((0, 0), (10, 10), (6, 6), (19, 16), (7, 0), (11, 13)):
        answer = predictor.predict(padded[row : row + window, col : col + window])[0]
        expected = [dict(zip(answer.labels, answer.probabilities, strict=True))[name] for name in LABELS]
        assert np.abs(found[1:, row, col] - expected).max() < (1e-4 if known else 2e-4)


def test_many_windows_are_resized_as_each_alone():
    preprocess = replace(steps(8, 15), interpolation="bicubic")
    windows = values(8, 8 * 5).reshape(8, 5, 8, 3)
    windows[2:4, 1] = np.nan
    together = inputs_of(preprocess, np.ascontiguousarray(windows.transpose(3, 1, 0, 2)))
    for place in range(5):
        alone, _ = preprocess.eval(np.ascontiguousarray(windows[:, place]))
        assert torch.allclose(together[place], alone, atol=1e-5)


def test_pixels_without_data_in_most_bands_have_none_in_the_map(tmp_path, predictor):
    image = values(12, 12)
    image[2, 3] = np.nan
    image[5, 6, :2] = np.nan
    image[8, 9, :1] = np.nan
    found, _ = mapped(predictor, write(tmp_path / "big.tif", image), tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as opened:
        assert np.argwhere(opened.read(1) == 0).tolist() == [[2, 3], [5, 6]]
    with rasterio.open(tmp_path / "map-entropy.tif") as opened:
        assert np.argwhere(opened.read_masks(1) == 0).tolist() == [[2, 3], [5, 6]]
    assert (found.empty, sum(found.pixels)) == (2, 142)


def test_a_raster_without_data_is_refused(tmp_path, predictor):
    path = write(tmp_path / "empty.tif", np.full((9, 9, 3), np.nan, np.float32))
    with pytest.raises(DataError, match="no data"):
        mapped(predictor, path, tmp_path / "map.tif")


def test_bands_are_taken_by_name(tmp_path, predictor):
    image = values(14, 9)
    mapped(predictor, write(tmp_path / "big.tif", image), tmp_path / "map.tif")
    turned = write(tmp_path / "turned.tif", image[..., ::-1], BANDS[::-1])
    mapped(predictor, turned, tmp_path / "other.tif")
    with rasterio.open(tmp_path / "map.tif") as one, rasterio.open(tmp_path / "other.tif") as other:
        assert (one.read() == other.read()).all()


def test_a_missing_band_is_named(tmp_path, predictor):
    path = write(tmp_path / "big.tif", values(9, 9)[..., :2], BANDS[:2])
    with pytest.raises(DataError, match="lacks the band B08; it holds VV, B04"):
        mapped(predictor, path, tmp_path / "map.tif")
    assert sorted(one.name for one in tmp_path.glob("map*")) == []


@pytest.mark.parametrize(
    ("band", "change", "words"),
    [
        (0, lambda x: 10 ** (x / 10), "The band VV .dB.* one is in dB"),
        (1, lambda x: x * 10_000, "The band B04 .reflectance.* scale is missing"),
        (2, lambda x: x * 255, "The band B08 .* times larger"),
    ],
)
def test_another_unit_is_refused(tmp_path, predictor, band, change, words):
    image = values(30, 30)
    image[..., band] = change(image[..., band])
    with pytest.raises(DataError, match=words):
        mapped(predictor, write(tmp_path / "big.tif", image), tmp_path / "map.tif")


def test_a_scale_in_the_file_is_applied(tmp_path, predictor):
    image = values(30, 30)
    plain = write(tmp_path / "plain.tif", image)
    image[..., 1:] *= 10_000
    scaled = write(tmp_path / "scaled.tif", image)
    with rasterio.open(scaled, "r+") as opened:
        opened.scales = (1, 1e-4, 1e-4)
    for path, out in ((plain, "one.tif"), (scaled, "two.tif")):
        mapped(predictor, path, tmp_path / out)
    with rasterio.open(tmp_path / "one.tif") as one, rasterio.open(tmp_path / "two.tif") as two:
        assert (one.read() == two.read()).mean() > 0.999


def test_a_shift_is_told(tmp_path, predictor):
    image = values(30, 30)
    image[..., 1] += 0.6
    _, said = mapped(predictor, write(tmp_path / "big.tif", image), tmp_path / "map.tif")
    assert [line for line in said if "The band B04" in line and "less certain" in line]


@pytest.mark.parametrize(
    ("seen", "known", "other"),
    [
        (Seen(-24, -12, -3), (0.002, 0.4), True),  # dB, linear in training
        (Seen(-0.4, -0.1, 0.4), (0.1, 0.9), False),  # an index over water
        (Seen(0.02, 0.2, 0.5), (0.01, 0.4), False),
        (Seen(300, 1500, 4000), (0.03, 0.4), True),
        (Seen(0.03, 0.15, 0.4), (300, 4000), True),
        (Seen(-20, -9, 2), (-25, -2), False),
        (Seen(0, 0.1, 1), (0, 0), False),
    ],
)
def test_units_are_told_apart_by_their_ranges(seen, known, other):
    assert bool(other_unit(seen, *known)) is other


def test_pixels_of_another_size_are_told_or_refused(tmp_path, predictor):
    some = write(tmp_path / "some.tif", values(9, 9), transform=from_origin(500_000, 5e6, 12, 12))
    _, said = mapped(predictor, some, tmp_path / "map.tif")
    assert any("pixels of 12 m" in line for line in said)
    far = write(tmp_path / "far.tif", values(9, 9), transform=from_origin(500_000, 5e6, 30, 30))
    with pytest.raises(DataError, match="gdalwarp -tr 10 10"):
        mapped(predictor, far, tmp_path / "map.tif")


def test_a_broken_raster_leaves_nothing(tmp_path, predictor):
    path = write(tmp_path / "big.tif", values(600, 520), tiled=True, blockxsize=256, blockysize=256)
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)
    (tmp_path / "map.tif").write_bytes(b"old")
    before = sorted(one.name for one in tmp_path.iterdir())
    with pytest.raises(DataError, match=r"big.tif (is broken at pixels|is no raster)"):
        mapped(predictor, path, tmp_path / "map.tif")
    assert (tmp_path / "map.tif").read_bytes() == b"old"
    assert sorted(one.name for one in tmp_path.iterdir() if one.name != "cache") == [
        one for one in before if one != "cache"
    ]


def test_a_full_disk_is_said_before_the_work(tmp_path, predictor, small_disk):
    path = write(tmp_path / "big.tif", values(9, 9))
    with pytest.raises(RunError, match="Free some disk space"):
        mapped(predictor, path, small_disk / "map.tif")
    assert list(small_disk.iterdir()) == []


def test_a_model_of_images_makes_no_maps(tmp_path):
    predictor = Predictor(model(tmp_path, vit(), replace(steps(), window=0)))
    with pytest.raises(SettingError, match="makes no maps"):
        mapped(predictor, write(tmp_path / "big.tif", values(9, 9)), tmp_path / "map.tif")


def test_answers_become_numbers():
    shares = np.array([[[0.7, 0.2], [0.5, 0.1]], [[0.3, 0.8], [0.5, 0.9]]], np.float32)
    none = np.array([[False, True], [False, False]])
    wanted = np.array([[True, True], [True, False]])
    top, numbers, entropy = numbers_of(TileAnswer(shares, none), wanted, 2, 0.6)
    assert numbers.tolist() == [[1, 3], [0, 0]]
    assert top[0].tolist() == pytest.approx([0.7, 0.8])
    assert entropy[1, 0] == pytest.approx(1)


# Segmentation


def whole_and_tiles(network, stack, names, side):
    """Return the shares of a raster as one tile, and from tiles of this side."""
    grid = stack.grid
    found = []
    for step in (max(grid.height, grid.width), side):
        shares = np.zeros((len(LABELS), grid.height, grid.width), np.float32)
        for top in range(0, grid.height, step):
            for left in range(0, grid.width, step):
                core = (left, top, min(left + step, grid.width), min(top + step, grid.height))
                read = stack.read(network.around(core), names)
                wanted = np.ones((core[3] - core[1], core[2] - core[0]), bool)
                shares[:, core[1] : core[3], core[0] : core[2]] = network.predict(
                    read, core, wanted
                ).probabilities
        found.append(shares)
    return found


def test_windows_in_tiles_equal_the_whole(tmp_path, predictor):
    stack = open_stack(tmp_path, write(tmp_path / "big.tif", values(40, 50)).name)
    network = WindowClasses(predictor, predictor.task, Request(predictor.point))
    whole, tiles = whole_and_tiles(network, stack, BANDS, 16)
    assert np.abs(whole - tiles).max() < 1e-5


def test_a_network_of_bounded_reach_makes_exact_tiles(tmp_path):
    encoder = create_encoder("test_resnet", image=(64, 64), channels=3)
    predictor = Predictor(model(tmp_path, encoder, steps(64, 64), "segment", head="linear"))
    margin = margin_of(predictor)
    assert margin == 160
    stack = open_stack(tmp_path, write(tmp_path / "big.tif", values(96, 80)).name)
    network = ExactTiles(predictor, predictor.task, Request(predictor.point), margin)
    whole, tiles = whole_and_tiles(network, stack, BANDS, 32)
    assert np.abs(whole - tiles).max() < 1e-5
    nearer = ExactTiles(predictor, predictor.task, Request(predictor.point), 32)
    whole, tiles = whole_and_tiles(nearer, stack, BANDS, 32)
    assert np.abs(whole - tiles).max() > 1e-4  # the margin matters


def segment_predictor(tmp_path):
    return Predictor(model(tmp_path, vit(16, 4), steps(16, 16), "segment", head="linear"))


def test_blended_windows_do_not_depend_on_tiles_and_show_no_seams(tmp_path):
    predictor = segment_predictor(tmp_path)
    assert margin_of(predictor) == 0
    smooth = np.stack([np.sin(np.add.outer(np.arange(90), np.arange(110)) / 9)] * 3, -1)
    image = (smooth * (4, 0.1, 0.1) + (-12, 0.2, 0.3)).astype(np.float32)
    stack = open_stack(tmp_path, write(tmp_path / "big.tif", image).name)
    network = BlendedWindows(predictor, predictor.task, Request(predictor.point), stack.grid)
    whole, tiles = whole_and_tiles(network, stack, BANDS, 32)
    assert np.abs(whole - tiles).max() < 1e-5
    steps_across = np.abs(np.diff(whole, axis=2)).mean((0, 1))
    seams = np.zeros(109, bool)
    seams[[one - 1 for one in network.lefts if one]] = True
    assert steps_across[seams].mean() <= 1.2 * steps_across[~seams].mean()


def test_a_map_of_a_segmentation(tmp_path):
    predictor = segment_predictor(tmp_path)
    path = write(tmp_path / "big.tif", values(33, 12))
    found, said = mapped(predictor, path, tmp_path / "map.tif", threshold=0.5)
    assert any("overlapping windows of 16 x 16" in line for line in said)
    assert sum(found.pixels) + found.empty == 33 * 12
    assert found.empty  # below the threshold


def test_a_tile_is_where_it_was_read():
    rows, cols = inner((10, 20, 30, 50), (6, 16, 34, 54))
    assert (rows, cols) == (slice(4, 34), slice(4, 24))


# Areas


def grid(crs, transform, height=4, width=6):
    wkt = rasterio.crs.CRS.from_string(crs).to_wkt() if crs else ""
    return Grid(wkt, tuple(transform)[:6], height, width)


def test_areas_by_the_unit_of_the_projection():
    assert row_areas(grid("EPSG:32633", UTM)).hectares.tolist() == [0.01] * 4
    feet = row_areas(grid("EPSG:2263", from_origin(1e6, 2e5, 100, 100))).hectares
    assert feet[0] == pytest.approx((100 * 1200 / 3937) ** 2 / 1e4)
    assert row_areas(grid("", UTM)).hectares is None


def test_areas_of_degrees_are_those_on_the_ellipsoid():
    found = row_areas(grid("EPSG:4326", from_origin(10, 60, 0.001, 0.001)))
    assert found.hectares[0] == pytest.approx(111.41 * 55.80 / 1e4, rel=2e-3)
    assert (np.diff(found.hectares) > 0).all()  # larger towards the equator
    assert pixel_side(grid("EPSG:4326", from_origin(10, 60, 0.001, 0.001))) == pytest.approx(78.85, rel=1e-3)


def test_distorted_areas_are_told():
    far = row_areas(grid("EPSG:3857", from_origin(1e6, 8.4e6, 10, 10)))
    assert "equal-area" in far.remark
    assert not row_areas(grid("EPSG:32633", UTM)).remark


@pytest.mark.parametrize("transform", [Affine(0, 10, 5e5, 10, 0, 5e6), Affine(8, 6, 5e5, 6, -8, 5e6)])
def test_rotated_rasters_keep_their_grid(tmp_path, predictor, transform):
    path = write(tmp_path / "big.tif", values(9, 14), transform=transform)
    mapped(predictor, path, tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as opened:
        assert (opened.transform, opened.shape) == (transform, (9, 14))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_without_georeference_pixels_are_counted(tmp_path, predictor):
    path = write(tmp_path / "big.tif", values(9, 14), crs=None, transform=Affine.identity())
    found, _ = mapped(predictor, path, tmp_path / "map.tif")
    assert (sum(found.pixels), found.hectares) == (126, None)
    assert any("only pixels" in line for line in found.remarks)


def test_a_folder_that_a_killed_process_left_is_removed(tmp_path, predictor):
    path = write(tmp_path / "big.tif", values(9, 9))
    mapped(predictor, path, tmp_path / "map.tif")
    from vitrail.infer.rasters.map_files import drafts_beside

    with drafts_beside(tmp_path / "map.tif") as own:
        left = own.with_name(own.name.replace(f".{own.name.split('.')[2]}.", ".4194303."))
        shutil.copytree(own, left)
        (left / "classes.draft.tif").write_bytes(b"half")
        mapped(predictor, path, tmp_path / "other.tif")
        assert left.exists()  # it belongs to another map
    mapped(predictor, path, tmp_path / "map.tif")
    assert not left.exists()


def test_bands_of_unknown_range_are_not_judged(tmp_path):
    bands = tuple(Band(name) for name in BANDS)
    predictor = Predictor(model(tmp_path, vit(), replace(steps(), bands=bands)))
    found, _ = mapped(predictor, write(tmp_path / "big.tif", values(9, 9)), tmp_path / "map.tif")
    assert sum(found.pixels) == 81


def test_reference_places_give_areas_with_intervals(tmp_path, predictor):
    path = write(tmp_path / "big.tif", values(40, 40))
    found, _ = mapped(predictor, path, tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as opened:
        numbers = opened.read(1)
    truth = np.zeros((40, 40), np.uint8)
    truth[::3, ::3] = np.array([3, 1, 2])[numbers[::3, ::3] - 1]  # its names are in another order
    reference = Reference("points.gpkg", truth, ("fen", "Water", "bog"))
    refuse_unknown(reference, found.names)
    counts = confusion(tmp_path / "map.tif", reference, found.names)
    assert (counts == np.diag(np.bincount(numbers[::3, ::3].ravel(), minlength=4)[1:])).all()
    for row in with_reference(found, tmp_path / "map.tif", reference).rows():
        assert row["estimated_hectares"] == pytest.approx(row["hectares"])
        assert row["low_hectares"] == row["high_hectares"] == pytest.approx(row["hectares"])
    few = reference._replace(classes=np.zeros_like(truth))
    assert "fewer than two places" in with_reference(found, tmp_path / "map.tif", few).remarks[-2]
    wrong = reference._replace(names=("fen", "sea", "bog"))
    with pytest.raises(DataError, match="the classes sea"):
        refuse_unknown(wrong, found.names)
