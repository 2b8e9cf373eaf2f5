"""The index: vectors belong to contents, so that renamed images cost nothing, and what changed is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.data.preprocess import Preprocess
from vitrail.models.factory import create_encoder
from vitrail.search.image_index import contents_of, index_of, unit
from vitrail.search.image_list import list_images
from vitrail.training.feature_cache import Frozen


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def asked(monkeypatch):
    """How many images are computed at each call."""
    found = []
    compute = Frozen.compute
    monkeypatch.setattr(
        Frozen, "compute", lambda self, m, r, plan: found.append(len(r)) or compute(self, m, r, plan)
    )
    return found


def frozen(channels=3):
    torch.manual_seed(0)
    return Frozen(create_encoder("vit_digits"), Preprocess.for_size(32), torch.device("cpu"))


def indexed(folder):
    return index_of(contents_of(list_images(folder)), frozen())


def test_vectors_have_length_one_and_are_computed_once(photos, asked):
    index = indexed(photos)
    np.testing.assert_allclose(np.linalg.norm(index.vectors, axis=1), 1, atol=1e-5)
    again = indexed(photos)
    assert asked == [6]
    np.testing.assert_array_equal(index.vectors, again.vectors)
    assert not again.notes


def test_a_moved_picture_is_found_again_without_computing_it(photos, asked):
    before = indexed(photos)
    (photos / "trip").mkdir()
    (photos / "3.png").rename(photos / "trip" / "renamed.png")
    (photos / "5.png").unlink()
    after = indexed(photos)
    assert asked == [6]
    old, new = (
        {row.id: vector for row, vector in zip(one.rows, one.vectors, strict=True)} for one in (before, after)
    )
    np.testing.assert_array_equal(new["trip/renamed.png"], old["3.png"])
    assert "5.png" not in new
    moved, gone = after.notes
    assert "3.png is now trip/renamed.png" in moved
    assert "vanished" in gone
    assert gone.endswith("5.png.")
    assert not indexed(photos).notes


def test_a_picture_that_was_written_again_is_read_again(photos, asked):
    before = indexed(photos)
    Image.new("RGB", (40, 40), (255, 0, 0)).save(photos / "2.png")
    after = indexed(photos)
    assert asked == [6, 1]
    assert not np.allclose(before.vectors[2], after.vectors[2])


def test_unchanged_files_are_not_opened(photos, monkeypatch):
    indexed(photos)
    read = []
    monkeypatch.setattr("vitrail.search.image_index.look_all", lambda new, *_: read.extend(new) or iter(()))
    indexed(photos)
    assert not read


def test_broken_pictures_are_named_and_left_out(photos):
    (photos / "2.png").write_bytes((photos / "2.png").read_bytes()[:60])
    index = indexed(photos)
    assert [one.id for one in index.broken] == ["2.png"]
    assert "2.png" in index.broken[0].why
    assert len(index.rows) == len(index.vectors) == 5


def test_pictures_that_the_network_cannot_take_are_left_out(photos, monkeypatch):
    contents = contents_of(list_images(photos))
    made = frozen()
    load = Frozen.batches
    bad = contents.rows[4].hash

    def batches(self, manifest, rows):
        if any(row.hash == bad for row in rows):
            raise DataError("4.png has another number of channels. Leave it out.")
        return load(self, manifest, rows)

    monkeypatch.setattr(Frozen, "batches", batches)
    index = index_of(contents, made)
    assert [row.id for row in index.rows] == [f"{number}.png" for number in (0, 1, 2, 3, 5)]
    assert [one.id for one in index.broken] == ["4.png"]


def test_a_folder_with_nothing_but_broken_pictures(tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match="None of 1 image"):
        contents_of(list_images(tmp_path / "bad"))


def test_two_archives_of_a_folder_do_not_miss_each_other(photos, tmp_path):
    import shutil

    for name in ("one", "two"):
        shutil.make_archive(str(tmp_path / name), "zip", photos)
    indexed(tmp_path / "one.zip")
    assert not indexed(tmp_path / "two.zip").notes


def test_a_record_that_cannot_be_read_costs_time_only(photos, tmp_path):
    indexed(photos)
    for record in (tmp_path / "cache" / "search").iterdir():
        record.write_text("{")
    assert len(indexed(photos).rows) == 6


def test_unit_keeps_zeros():
    np.testing.assert_array_equal(unit(np.zeros((1, 3), np.float32)), np.zeros((1, 3)))
    np.testing.assert_allclose(unit(np.array([[3.0, 4.0]])), [[0.6, 0.8]], rtol=1e-6)
