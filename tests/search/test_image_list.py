"""Which images of a source are searched: all, wherever they lie, without their labels and without masks."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.search.image_list import list_images


def write(path, seed=0, size=(24, 24)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def zipped(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for seed, name in enumerate(names):
            data = io.BytesIO()
            Image.fromarray(np.full((20, 20, 3), seed, np.uint8)).save(data, "PNG")
            archive.writestr(name, data.getvalue())
        archive.writestr("notes.txt", "nothing")


def ids(source):
    return [one.id for one in list_images(source).entries]


def test_pictures_of_subfolders_and_archives_are_found_together(tmp_path):
    write(tmp_path / "a.png")
    write(tmp_path / "trip" / "day 10" / "b.jpg")
    write(tmp_path / "trip" / "day 2" / "c.jpg")
    write(tmp_path / ".thumbs" / "d.jpg")
    zipped(tmp_path / "trip" / "old.zip", ["x/1.png", "x/2.png"])
    (tmp_path / "notes.txt").write_text("nothing")
    wanted = [
        "a.png",
        "trip/day 2/c.jpg",
        "trip/day 10/b.jpg",
        "trip/old.zip!x/1.png",
        "trip/old.zip!x/2.png",
    ]
    assert ids(tmp_path) == wanted


def test_an_archive_alone_and_a_folder_of_archives(tmp_path):
    zipped(tmp_path / "one.zip", ["1.png"])
    assert ids(tmp_path / "one.zip") == ["one.zip!1.png"]
    assert ids(tmp_path) == ["one.zip!1.png"]


def test_labels_do_not_matter_even_if_they_contradict(tmp_path):
    for number in range(6):
        write(tmp_path / f"{'ab'[number % 2]}" / f"{number}.png", number)
    lines = [f"{'ab'[number % 2]}/{number}.png,{'xy'[number // 3]}" for number in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,label", *lines]))
    assert len(ids(tmp_path)) == 6


def test_masks_are_no_pictures(tmp_path):
    for number in range(6):
        write(tmp_path / "images" / f"{number}.png", number)
        mask = np.zeros((24, 24), np.uint8)
        mask[4:12, 4:12] = 1 + number % 2
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    assert ids(tmp_path) == [f"images/{number}.png" for number in range(6)]
    assert any("mask" in note for note in list_images(tmp_path).notes)


def test_rows_of_arrays_are_pictures(tmp_path):
    draw = np.random.default_rng(0)
    np.savez(
        tmp_path / "set.npz",
        images=draw.integers(0, 255, (8, 16, 16, 3), dtype=np.uint8),
        labels=np.arange(8) % 2,
    )
    assert len(ids(tmp_path / "set.npz")) == 8


def test_a_broken_archive_is_said_and_the_rest_is_found(tmp_path):
    write(tmp_path / "a.png")
    (tmp_path / "b.zip").write_bytes(b"no archive")
    found = list_images(tmp_path)
    assert [one.id for one in found.entries] == ["a.png"]
    assert any("b.zip" in note for note in found.notes)


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match="no images"):
        list_images(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        list_images(tmp_path / "nowhere")
