"""Rasters with labels as a data set: windows, tiles, blocks, and what is no raster with labels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pictures import folders
from rasters import box, layer, scene, write

from vitrail.core.errors import DataError, SettingError, UnknownNameError
from vitrail.data.changed_images import find_changes
from vitrail.data.layouts import Layout, sniff
from vitrail.data.open_image import content_hash, load, read
from vitrail.data.options import LayoutOptions
from vitrail.data.parts import raster_window
from vitrail.data.prepare import prepare
from vitrail.data.rasters.labels import LabelMap
from vitrail.data.rasters.samples import chosen, shared
from vitrail.tasks.segment.targets import SegmentTargets


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a scene of 60 x 80 pixels, whose left half is bog and whose right half is wood."""
    root = tmp_path / "area"
    root.mkdir()
    scene(root / "scene.tif")
    layer(root / "training.gpkg", [box(0, 0, 40, 60), box(40, 0, 80, 60)], **{"class": ["bog", "wood"]})
    return root


def of(folder: Path, **options: object) -> Layout:
    given = {"labels": str(folder / "training.gpkg"), **options}
    return sniff(folder / "scene.tif", LayoutOptions(**given))


def test_each_labelled_pixel_is_at_half_of_its_window(folder: Path) -> None:
    layout = of(folder)
    assert layout.name == "raster"
    assert len(layout.found) == 60 * 80
    entry = next(one for one in layout.found if one.id == "scene.tif/7,50")
    assert (entry.target, entry.part) == ("wood", "raster=46,3,54,11")
    whole = load(folder, "scene.tif", 3, "raster=50,7,51,8", raw=True).image
    window = load(folder, "scene.tif", 3, entry.part, raw=True).image
    np.testing.assert_array_equal(window[4, 4], whole[0, 0])
    assert layout.raster is not None
    assert (layout.raster.window, layout.raster.pixel) == (8, 10.0)
    assert [band.name for band in layout.raster.bands] == ["B01", "B02", "B03"]


def test_a_folder_with_a_scene_and_its_labels_is_read_so(folder: Path) -> None:
    layout = sniff(folder)
    assert layout.name == "raster"
    assert layout.why.startswith(
        "a raster with labels, because training.gpkg gives classes to places of scene.tif"
    )
    (folder / "training.gpkg").unlink()
    write(folder / "classes.tif", np.full((1, 60, 80), 3, np.uint8))
    assert {entry.target for entry in sniff(folder).found} == {"3"}


def test_photographs_are_not_taken_away_from_other_layouts(tmp_path: Path) -> None:
    root = folders(tmp_path / "photos", {"cat": 3, "labels": 3}, size=(20, 20))
    for i in range(3):
        write(root / f"cat/t{i}.tif", np.full((3, 20, 20), i, np.uint8), crs=None)
        write(root / f"labels/t{i}.tif", np.full((3, 20, 20), 9 + i, np.uint8), crs=None)
    assert sniff(root).name == "folders"


def test_what_is_missing_is_said(folder: Path) -> None:
    with pytest.raises(DataError, match=r"scene\.tif has no labels.*--labels training\.gpkg"):
        sniff(folder / "scene.tif")
    with pytest.raises(UnknownNameError, match=r"no file of labels called 'nowhere\.gpkg'"):
        of(folder, labels="nowhere.gpkg")
    with pytest.raises(SettingError, match="--window 0"):
        of(folder, window=0)


def test_options_are_words_of_a_command(folder: Path) -> None:
    options = LayoutOptions(labels="t.gpkg", window=16, buffer=0)
    assert options.words() == ("--labels", "t.gpkg", "--window", "16", "--buffer", "0")
    assert options.with_words({"window": "", "block": "32"}) == LayoutOptions(
        labels="t.gpkg", block=32, buffer=0
    )
    with pytest.raises(SettingError, match="--block many"):
        options.with_words({"block": "many"})


@pytest.mark.parametrize("window", [5, 8])
def test_no_pixel_of_a_window_is_seen_by_two_splits(folder: Path, window: int) -> None:
    done = prepare(
        folder / "scene.tif", LayoutOptions(labels=str(folder / "training.gpkg"), window=window, block=20)
    )
    seen = {split: np.zeros((80, 100), bool) for split in ("train", "val", "test")}
    for row in done.manifest.rows():
        left, top, right, bottom = raster_window(row.part, row.path)
        seen[row.split][top + 10 : bottom + 10, left + 10 : right + 10] = True
    assert all(map(np.any, seen.values()))
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        assert not (seen[one] & seen[other]).any()
    blocks = Counter(
        (row.group, split) for row in done.manifest.rows(state=None) for split in [row.split] if row.split
    )
    assert len({group for group, _ in blocks}) == len(blocks)  # a block lies in one split
    out = [row for row in done.manifest.rows(state=None) if row.state == "quarantined"]
    assert {row.reason for row in out} == {f"fewer than {window} px from labels of another split"}
    assert f"{len(out):,} of 4,800 labelled places lie fewer than {window} px" in " ".join(done.notes)
    assert not [row for row in out if row.split == "test"]


def test_without_a_buffer_nothing_is_left_out(folder: Path) -> None:
    done = prepare(folder / "scene.tif", LayoutOptions(labels=str(folder / "training.gpkg"), buffer=0))
    assert len(done.manifest.rows()) == 4800


def test_given_splits_win_and_lacking_classes_are_said(tmp_path: Path) -> None:
    scene(tmp_path / "scene.tif")
    shapes = [box(0, 0, 20, 60), box(30, 0, 40, 60), box(60, 0, 80, 30), box(60, 30, 80, 60)]
    columns = {"class": ["bog", "wood", "bog", "bog"], "split": ["train", "train", "val", "test"]}
    path = layer(tmp_path / "t.gpkg", shapes, **columns)
    done = prepare(tmp_path / "scene.tif", LayoutOptions(labels=str(path)))
    split = {row.id: row.split for row in done.manifest.rows()}
    assert (split["scene.tif/0,0"], split["scene.tif/50,70"]) == ("train", "test")
    assert "No block of test holds wood: try smaller ones, --block" in done.notes
    assert not any(
        row.split == "val" and raster_window(row.part, "")[1] + 4 > 22 for row in done.manifest.rows()
    )


def test_tiles_hold_their_classes_and_are_void_without_a_label(tmp_path: Path) -> None:
    scene(tmp_path / "scene.tif")
    path = layer(tmp_path / "t.gpkg", [box(0, 0, 10, 20), box(10, 0, 24, 5)], name=["bog", "wood"])
    layout = sniff(tmp_path / "scene.tif", LayoutOptions(labels=str(path), window=16), task="segment")
    assert layout.truth.names == ("bog", "wood")
    assert sorted(entry.id for entry in layout.found) == ["scene.tif/0,0", "scene.tif/0,16", "scene.tif/16,0"]
    done = prepare(tmp_path / "scene.tif", LayoutOptions(labels=str(path), window=16), task="segment")
    row = next(row for row in done.manifest.rows() if row.id == "scene.tif/0,0")
    wanted = np.full((16, 16), 255)
    wanted[:, :10] = 0
    wanted[:5, 10:] = 1
    targets = SegmentTargets(done.manifest.truth)
    np.testing.assert_array_equal(targets.read(row, tmp_path), wanted)
    done.manifest.write(tmp_path / "manifest.csv")
    again = type(done.manifest).read(tmp_path / "manifest.csv", tmp_path)
    np.testing.assert_array_equal(targets.read(again.rows()[0], tmp_path), wanted)


def test_of_many_labels_the_rarest_are_all_taken(tmp_path: Path) -> None:
    classes = np.ones((100, 100), np.uint8)
    classes[:50, :50] = 2
    classes[70, :7] = 3
    found = chosen(LabelMap(classes, ("a", "b", "c")), 10, most=1_007)
    assert np.bincount(found.classes).tolist() == [500, 500, 7]
    assert found.labelled == 10_000
    own = found.classes == 1
    tally = Counter(zip((found.rows[own] // 10).tolist(), (found.cols[own] // 10).tolist(), strict=True))
    assert set(tally.values()) == {20}
    assert shared(np.array([5, 1, 100]), 12).tolist() == [5, 1, 6]


def test_windows_without_data_are_one_finding(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 99, (2, 60, 80)).astype(np.uint8)
    values[:, :, 50:] = 0
    write(tmp_path / "scene.tif", values, nodata=0)
    path = layer(tmp_path / "t.gpkg", [box(0, 0, 40, 60), box(40, 0, 80, 60)], name=["bog", "wood"])
    done = prepare(tmp_path / "scene.tif", LayoutOptions(labels=str(path), block=20))
    found = [one for one in done.report.findings if one.kind == "no data"]
    assert len(found) == 1
    assert len(found[0].ids) == 60 * 26  # windows whose left edge is at column 50 or beyond
    assert "unreadable" not in {one.kind for one in done.report.findings}


def test_a_truncated_file_loses_the_windows_that_are_broken(tmp_path: Path) -> None:
    scene(tmp_path / "scene.tif", 200, 80)
    path = layer(tmp_path / "t.gpkg", [box(0, 0, 80, 20), box(0, 150, 80, 190)], name=["bog", "wood"])
    data = (tmp_path / "scene.tif").read_bytes()
    (tmp_path / "scene.tif").write_bytes(data[: int(0.9 * len(data))])
    done = prepare(tmp_path / "scene.tif", LayoutOptions(labels=str(path), block=20))
    broken = [row for row in done.manifest.rows(state=None) if "scene.tif is broken at pixels" in row.reason]
    assert 0 < len(broken) < 40 * 80
    assert not [row for row in broken if raster_window(row.part, "")[3] < 150]  # the first rows are whole
    finding = next(one for one in done.report.findings if one.kind == "unreadable")
    assert finding.text.startswith(f"{len(broken):,} windows cannot be used")
    (tmp_path / "scene.tif").write_bytes(data[:100])
    with pytest.raises(DataError, match=r"scene\.tif"):
        prepare(tmp_path / "scene.tif", LayoutOptions(labels=str(path)))


def test_changed_windows_are_found_and_hashes_are_those_of_single_reads(folder: Path) -> None:
    done = prepare(folder / "scene.tif", LayoutOptions(labels=str(folder / "training.gpkg"), buffer=0))
    rows = done.manifest.rows()
    some = rows[:: len(rows) // 20]
    assert all(row.hash == content_hash(read(folder, row.path, row.part), row.path, row.part) for row in some)
    assert not find_changes(rows, folder).ids()
    values = (
        load(folder, "scene.tif", 3, "raster=0,0,80,60", raw=True).image.transpose(2, 0, 1).astype(np.uint16)
    )
    values[:, 30, 30] += 1
    write(folder / "scene.tif", values, nodata=0, names=["B01", "B02", "B03"])
    assert len(find_changes(rows, folder).changed) == 64
    (folder / "scene.tif").unlink()
    assert len(find_changes(rows, folder).missing) == len(rows)
