"""Masks as their files hold them: numbers and palettes stay, colours by a table, nothing is shifted or guessed."""

from __future__ import annotations

import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from scenes import folder

from vitrail.core.errors import DataError
from vitrail.data.layouts.mask_files import RawMask, decode_mask, paint, read_raw
from vitrail.data.manifest import Row
from vitrail.data.prepare import prepare
from vitrail.data.truth import Truth
from vitrail.tasks.segment.targets import SegmentTargets

VALUES = np.array([[0, 1, 2], [2, 1, 255]], np.uint8)


def stored(image, format="PNG"):
    buffer = BytesIO()
    image.save(buffer, format=format)
    return buffer.getvalue()


def test_a_palette_keeps_its_numbers():
    image = Image.fromarray(VALUES)
    image.putpalette([9, 8, 7, 1, 2, 3, 200, 100, 0, *[0] * 759])
    raw = read_raw(stored(image), "a.png")
    np.testing.assert_array_equal(raw.array, VALUES)
    assert raw.palette[:3] == ((9, 8, 7), (1, 2, 3), (200, 100, 0))
    np.testing.assert_array_equal(decode_mask(raw, Truth("mask", ("a", "b", "c")), "a.png"), VALUES)


def test_colours_by_a_table_and_an_unknown_one_by_its_count_and_file():
    colours = np.array([[10, 0, 0], [0, 20, 0], [0, 0, 30]], np.uint8)
    raw = read_raw(stored(Image.fromarray(colours[np.minimum(VALUES, 2)])), "a.png")
    truth = Truth(
        "mask", ("a", "b"), ((0, 20, 0), (10, 0, 0), (0, 0, 30))
    )  # the third is beyond the names: void
    expected = np.array([[1, 0, 255], [255, 0, 255]])
    np.testing.assert_array_equal(decode_mask(raw, truth, "a.png"), expected)
    swapped = Truth("mask", ("a", "b"), ((0, 20, 0), (0, 0, 10), (0, 0, 30)))
    with pytest.raises(DataError, match=r"a\.png holds #0a0000 \(1 px\)"):
        decode_mask(raw, swapped, "a.png")
    with pytest.raises(DataError, match=r"classes\.txt"):
        decode_mask(raw, Truth("mask", ("a", "b")), "a.png")


def test_numbers_stand_for_what_the_header_says_and_nothing_is_shifted():
    ids = RawMask(np.array([[7, 0, 11, 8]]))
    truth = Truth("mask", ("road", "wall"), values=(7, 11, 0, 8))
    assert decode_mask(ids, truth, "a").tolist() == [[0, 255, 1, 255]]
    plain = Truth("mask", ("a", "b"), void=0, values=(1, 2))
    assert decode_mask(RawMask(np.array([[0, 1, 2]])), plain, "a").tolist() == [[255, 0, 1]]
    with pytest.raises(DataError, match=r"b\.png holds 3 \(2 px\), 9 \(1 px\)"):
        decode_mask(RawMask(np.array([[3, 1, 3, 9]])), plain, "b.png")


def test_0_and_255_are_two_classes_said_in_a_line(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i in range(8):
        draw = np.random.default_rng(i)
        Image.fromarray(draw.integers(0, 255, (20, 30, 3)).astype(np.uint8)).save(
            tmp_path / "images" / f"{i}.png"
        )
        Image.fromarray((255 * draw.integers(0, 2, (20, 30))).astype(np.uint8)).save(
            tmp_path / "masks" / f"{i}.png"
        )
    prepared = prepare(tmp_path)
    assert prepared.manifest.truth == Truth("mask", ("background", "foreground"), values=(0, 255))
    assert any("0 and 255 alone: two classes" in line for line in prepared.lines())
    row = prepared.manifest.rows()[0]
    assert sorted(np.unique(prepared.targets.read(row, prepared.manifest.root)).tolist()) == [0, 1]


def test_jpeg_and_broken_masks_are_refused_by_name():
    with pytest.raises(DataError, match=r"a\.jpg is a mask in JPEG"):
        read_raw(stored(Image.fromarray(VALUES), "JPEG"), "a.jpg")
    with pytest.raises(DataError, match=r"a\.png is no mask"):
        read_raw(b"nothing", "a.png")
    with pytest.raises(DataError, match="no whole ones"):
        read_raw(stored(Image.fromarray(np.full((2, 2), 0.5, np.float32)), "TIFF"), "a.tif")


def test_outlines_and_run_lengths_keep_holes_and_parts():
    ring = {"class": "b", "rle": {"size": [4, 4], "counts": [0, 5, 2, 2, 2, 5]}}
    mask = paint([ring], (4, 4), {"a": 0, "b": 1}, "x")
    assert mask.tolist() == [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    short = {"class": "b", "rle": {"size": [4, 4], "counts": "052M03"}}
    two = {"class": "b", "polygons": [[0, 0, 2, 0, 2, 2, 0, 2], [3, 3, 4, 3, 4, 4, 3, 4]]}
    assert paint([two], (4, 4), {"b": 1}, "x").tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 1],
    ]
    assert paint([{"class": None, "rle": ring["rle"]}], (4, 4), {}, "x")[0, 0] == 255
    np.testing.assert_array_equal(paint([short], (4, 4), {"a": 0, "b": 1}, "x"), mask)
    with pytest.raises(DataError, match="x holds run lengths of 3 pixels"):
        paint([{"class": "b", "rle": {"size": [4, 4], "counts": [3]}}], (4, 4), {"b": 1}, "x")
    with pytest.raises(DataError, match="class 'c'"):
        paint([{"class": "c"}], (4, 4), {"b": 1}, "x")


def test_one_file_a_class_and_a_window_of_a_mask(tmp_path):
    for name, rows in (("road", slice(0, 2)), ("sky", slice(1, 3))):
        part = np.zeros((4, 6), np.uint8)
        part[rows] = 200
        Image.fromarray(part).save(tmp_path / f"{name}.png")
    targets = SegmentTargets(Truth("mask", ("ground", "road", "sky")))
    target = json.dumps({"classes": {"road": "road.png", "sky": "sky.png"}})
    whole = targets.read(Row("a", "a", target=target), tmp_path)
    assert whole[:, 0].tolist() == [1, 2, 2, 0]
    cut = targets.read(Row("a", "a", "window=1,1,4,3", target), tmp_path)
    np.testing.assert_array_equal(cut, whole[1:3, 1:4])


def test_a_mask_of_another_size_is_kept_out(tmp_path):
    folder(tmp_path / "set", 6)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "set" / "masks" / "3.png")
    prepared = prepare(tmp_path / "set")
    assert prepared.report.of("mask size") == ("images/3.png",)
    assert len(prepared.manifest.rows()) == 5
