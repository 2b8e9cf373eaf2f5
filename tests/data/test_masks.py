"""Masks of every kind of source, made small: read to the exact numbers; what is wrong with them, and the way out."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import encode, put, scene
from PIL import Image

from vitrail.cli.main import run
from vitrail.core.errors import DataError
from vitrail.data.layouts import Entry, Layout, mask_files, sniff
from vitrail.data.layouts.base import Tree
from vitrail.data.layouts.frames import with_frames
from vitrail.data.manifest import Row
from vitrail.data.options import LayoutOptions
from vitrail.data.prepare import Prepared, prepare
from vitrail.data.truth import Truth
from vitrail.tasks.segment.targets import SegmentTargets

Array = NDArray[Any]
SIZE = (40, 60)
VOID = 255


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


def image(seed: int, kind: str = "JPEG", size: tuple[int, int] = SIZE) -> bytes:
    return encode(scene(seed, size), kind)


def classes(seed: int, k: int = 3, size: tuple[int, int] = SIZE) -> Array:
    """Return a mask of all of k classes in upright bars, others for another seed."""
    bars = (np.arange(size[1]) * k // size[1] + seed) % k
    return np.broadcast_to(bars, size).astype(np.uint8)


def coloured(mask: Array, colours: list[tuple[int, int, int]]) -> bytes:
    return encode(np.array(colours, np.uint8)[mask])


def read(layout: Layout) -> dict[str, Array]:
    """Return the mask of every image by its name."""
    targets = SegmentTargets(layout.truth)
    return {
        entry.id: targets.read(Row(entry.id, entry.path, target=entry.target), layout.root)
        for entry in layout.entries()
        if entry.target and not entry.trouble
    }


def look(root: Path, task: str | None = None, **options: Any) -> Layout:
    layout = sniff(root, LayoutOptions(**options), task=task)
    assert layout.truth.kind == "mask"
    assert layout.question is None
    return layout


def splits(layout: Layout) -> dict[str, int]:
    return dict(Counter(entry.split for entry in layout.found if not entry.trouble))


# Where masks stand: the folders of images and masks; the mask of image number i has i % 3 first

SPELLINGS = {
    "plain": ("images/{i}.jpg", "masks/{i}.png"),
    "marked": ("images/{i}.jpg", "masks/{i}_mask.png"),
    "labels": ("images/train/{i}.jpg", "labels/train/{i}.png"),
    "inside": ("train/images/{i}.jpg", "train/annotations/{i}.png"),
    "segnet": ("CamVid/train/{i}.png", "CamVid/trainannot/{i}.png"),
    "camvid": ("CamVid/train/a_{i}.png", "CamVid/train_labels/a_{i}_L.png"),
    "ade": ("images/training/ADE_train_{i}.jpg", "annotations/training/ADE_train_{i}.png"),
    "carvana": ("train/{i}.jpg", "train_masks/{i}_mask.png"),
    "deepglobe": ("train/{i}_sat.jpg", "train/{i}_mask.png"),
    "isic": ("ISIC_Training_Input/ISIC_{i}.jpg", "ISIC_Training_GroundTruth/ISIC_{i}_segmentation.png"),
    "loveda": ("Train/Rural/images_png/{i}.png", "Train/Rural/masks_png/{i}.png"),
    "beside": ("{i}.jpg", "{i}_seg.png"),
    "twice named": ("img/{i}.jpg", "gt/{i}.jpg.png"),
    "before": ("all/img{i}.tif", "all/mask{i}.tif"),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_masks_are_found_by_the_usual_spellings(name: str, tmp_path: Path) -> None:
    pictures, masks = SPELLINGS[name]
    for i in range(3):
        put(tmp_path / pictures.format(i=i), image(i, "JPEG" if pictures.endswith("jpg") else "PNG"))
        put(tmp_path / masks.format(i=i), encode(classes(i)))
    layout = look(tmp_path)
    assert layout.truth.names == ("class 0", "class 1", "class 2")
    found = read(layout)
    assert len(layout.found) == len(found) == 3
    for i in range(3):
        np.testing.assert_array_equal(found[pictures.format(i=i)], classes(i))
    assert splits(layout) == ({"train": 3} if "rain" in pictures and name != "isic" else {"": 3})


def test_cityscapes_is_known_with_its_void_and_its_cities_are_no_classes(tmp_path: Path) -> None:
    for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "lindau")):
        stem = f"{split}/{city}/{city}_000000_000019"
        put(tmp_path / f"leftImg8bit/{stem}_leftImg8bit.png", image(len(city)))
        ids = np.full(SIZE, 7, np.uint8)
        ids[:5], ids[5:9], ids[9] = 26, 33, 1
        put(tmp_path / f"gtFine/{stem}_gtFine_labelIds.png", encode(ids))
        put(tmp_path / f"gtFine/{stem}_gtFine_instanceIds.png", encode(ids))
        put(tmp_path / f"gtFine/{stem}_gtFine_color.png", coloured(np.zeros(SIZE, np.uint8), [(1, 2, 3)]))
    layout = look(tmp_path)
    assert (len(layout.truth.names), layout.truth.names[0], layout.truth.names[-1]) == (19, "road", "bicycle")
    assert splits(layout) == {"train": 2, "val": 1}
    mask = read(layout)["leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png"]
    assert [mask[row, 0] for row in (0, 5, 9, 10)] == [13, 18, VOID, 0]


def test_oxford_pets_trimaps(tmp_path: Path) -> None:
    for i in range(4):
        put(tmp_path / f"images/Abyssinian_{i}.jpg", image(i))
        put(tmp_path / f"annotations/trimaps/Abyssinian_{i}.png", encode(classes(i) + np.uint8(1)))
    put(tmp_path / "annotations/trainval.txt", "Abyssinian_0 1 1 1\nAbyssinian_1 1 1 1\nAbyssinian_2 1 1 1\n")
    put(tmp_path / "annotations/test.txt", "Abyssinian_3 1 1 1\n")
    layout = look(tmp_path)
    assert layout.truth.names == ("pet", "background")
    np.testing.assert_array_equal(
        read(layout)["images/Abyssinian_0.jpg"], np.array([0, 1, VOID], np.uint8)[classes(0)]
    )
    assert splits(layout) == {"train": 3, "test": 1}


def test_drive_takes_the_vessels_and_not_the_field_of_view(tmp_path: Path) -> None:
    vessel = (classes(0, 2) * 255).astype(np.uint8)
    for split, i, hand in (
        ("training", 21, "1st_manual"),
        ("test", 1, "1st_manual"),
        ("test", 1, "2nd_manual"),
    ):
        put(tmp_path / f"{split}/images/{i:02}_{split}.tif", image(i, "TIFF"))
        put(tmp_path / f"{split}/mask/{i:02}_{split}_mask.gif", encode(np.full(SIZE, 255, np.uint8), "GIF"))
        put(tmp_path / f"{split}/{hand}/{i:02}_manual{hand[0]}.gif", encode(vessel, "GIF"))
    layout = look(tmp_path)
    assert splits(layout) == {"train": 1, "test": 1}
    np.testing.assert_array_equal(read(layout)["training/images/21_training.tif"], classes(0, 2))
    assert {entry.target for entry in layout.found} == {
        "training/1st_manual/21_manual1.gif", "test/1st_manual/01_manual1.gif",
    }  # fmt: skip


def test_a_mask_for_each_nucleus_makes_one_of_two_classes(tmp_path: Path) -> None:
    for i, name in enumerate(("ab12", "cd34", "ef56")):
        put(tmp_path / f"stage1_train/{name}/images/{name}.png", image(i, "PNG"))
        for j in range(3):
            one = np.zeros(SIZE, np.uint8)
            one[j * 10 : j * 10 + 5, i : i + 20] = 255
            put(tmp_path / f"stage1_train/{name}/masks/{j}f{i}e.png", encode(one))
    layout = look(tmp_path)
    assert layout.truth.names == ("background", "foreground")
    mask = read(layout)["stage1_train/cd34/images/cd34.png"]
    assert (mask.shape, int(mask.sum())) == (SIZE, 3 * 5 * 20)
    assert mask[10:15, 1:21].all()
    put(tmp_path / "stage1_train/ab12/masks/0f0e.png", b"no image")
    assert {entry.id: entry.trouble[:28] for entry in look(tmp_path).found if entry.trouble} == {
        "stage1_train/ab12/images/ab12.png": "has a mask that cannot be us"
    }


@pytest.mark.parametrize("form", ["masks/{kind}/{i}.png", "masks/{i}_{kind}.png"])
def test_one_file_a_class(form: str, tmp_path: Path) -> None:
    for i in range(4):
        put(tmp_path / f"images/{i}.jpg", image(i))
        for number, kind in enumerate(("Car", "road"), 1):
            put(
                tmp_path / form.format(kind=kind, i=i),
                encode(((classes(i) == number) * 255).astype(np.uint8)),
            )
    layout = look(tmp_path)
    assert layout.truth == Truth("mask", ("background", "Car", "road"))
    np.testing.assert_array_equal(read(layout)["images/2.jpg"], classes(2))


def test_files_of_classes_that_overlap_say_which_wins(tmp_path: Path) -> None:
    for i in range(3):
        put(tmp_path / f"images/{i}.jpg", image(i))
        for kind in ("Car", "road"):
            there = classes(i) == 1 if kind == "Car" and i < 2 else classes(i) > 0
            there = classes(i) == 2 if kind == "road" and i == 1 else there
            put(tmp_path / f"masks/{kind}/{i}.png", encode((there * 255).astype(np.uint8)))
    layout = look(tmp_path)
    line = (
        "The files of several classes cover the same pixels in 2 images: there the later class wins "
        "(background < Car < road). The order is that of classes.txt, else of the names."
    )
    assert line in layout.notes
    assert sorted(np.unique(read(layout)["images/0.jpg"])) == [0, 2]
    put(tmp_path / "classes.txt", "road\nCar\n")
    layout = look(tmp_path)
    assert any("(background < road < Car)" in note for note in layout.notes)
    assert sorted(np.unique(read(layout)["images/0.jpg"])) == [0, 1, 2]


def test_a_video_in_folders_and_pictures_named_after_classes(tmp_path: Path) -> None:
    """Folders that only sound like masks are classes."""
    for name in ("with_mask", "without_mask"):
        for i in range(3):
            put(tmp_path / f"faces/{name}/{name}_{i}.jpg", image(i))
    assert sniff(tmp_path / "faces").classes == ["with_mask", "without_mask"]
    for name in ("mask", "nomask"):
        for i in range(3):
            put(tmp_path / f"more/{name}/{i}.jpg", image(i))
    assert sniff(tmp_path / "more").classes == ["mask", "nomask"]


# What masks mean

COLOURS = [(128, 64, 128), (0, 0, 142), (70, 130, 180)]
TABLES = {
    "label_colors.txt": "128 64 128\tRoad\n0 0 142\tCar\n70 130 180\tVoid\n",
    "classes.txt": "Road 128 64 128\nCar 0 0 142\nVoid 70 130 180\n",
    "class_dict.csv": "name,r,g,b\nRoad,128,64,128\nCar,0,0,142\nVoid,70,130,180\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nRoad:128,64,128::\nCar:0,0,142::\nVoid:70,130,180::\n",
    "classes.json": json.dumps([{"name": "Road", "color": "#804080"}, {"name": "Car", "color": [0, 0, 142]},
                                {"name": "Void", "color": "#4682b4"}]),
    "colors.txt": "Road #804080\nCar #00008e\nVoid #4682B4\n",
    "palette.txt": "0 Road 128 64 128\n1 Car 0 0 142\n2 Void 70 130 180\n",
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_colours_by_every_table(name: str, tmp_path: Path) -> None:
    for i in range(2):
        put(tmp_path / f"images/{i}.jpg", image(i))
        put(tmp_path / f"masks/{i}.png", coloured(classes(i), COLOURS))
    put(tmp_path / name, TABLES[name])
    layout = look(tmp_path)
    assert (layout.truth.names, layout.truth.colours) == (("Road", "Car"), tuple(COLOURS))
    np.testing.assert_array_equal(read(layout)["images/1.jpg"], np.array([0, 1, VOID], np.uint8)[classes(1)])
    assert any("Void" in note and "counts nowhere" in note for note in layout.notes)


NUMBERS = {
    "classes.txt": "road\nvoid\ncar\n",
    "labels.csv": "id,name\n0,road\n1,Unlabeled\n2,car\n",
    "dataset.json": json.dumps({"labels": {"road": 0, "ignore": 1, "car": 2}}),
    "names.txt": "0: road\n1: unlabelled\n2: car\n",
    "objectInfo3.txt": "Idx\tRatio\tName\n0\t0.1\troad\n1\t0.1\tvoid\n2\t0.2\tcar\n",
    "label_names.json": json.dumps({"0": "road", "1": "don't care", "2": "car"}),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_void_class_in_the_middle_shifts_no_number(name: str, tmp_path: Path) -> None:
    for i in range(2):
        put(tmp_path / f"images/{i}.jpg", image(i))
        put(tmp_path / f"masks/{i}.png", encode(classes(i)))
    put(tmp_path / name, NUMBERS[name])
    layout = look(tmp_path)
    assert (layout.truth.names, layout.truth.values) == (("road", "car"), (0, 2, 1))
    np.testing.assert_array_equal(read(layout)["images/0.jpg"], np.array([0, VOID, 1], np.uint8)[classes(0)])


def test_palettes_keep_their_numbers_and_voc_is_known(tmp_path: Path) -> None:
    bits = np.array([[(n >> (3 * i + c)) & 1 for i in range(8)] for n in range(256) for c in range(3)])
    palette = (bits << np.arange(7, -1, -1)).sum(1).astype(np.uint8)
    mask = np.array([0, 15, VOID], np.uint8)[classes(0)]
    shown = Image.fromarray(mask)
    shown.putpalette(palette.tobytes())
    for i in range(2):
        put(tmp_path / f"VOC/JPEGImages/{i}.jpg", image(i))
        put(tmp_path / f"VOC/SegmentationClass/{i}.png", encode(shown if i else shown.convert("RGB")))
        put(tmp_path / f"VOC/SegmentationObject/{i}.png", encode(shown))
    put(tmp_path / "VOC/JPEGImages/other.jpg", image(9))
    put(tmp_path / "VOC/ImageSets/Segmentation/train.txt", "0\n")
    put(tmp_path / "VOC/ImageSets/Segmentation/val.txt", "1\n")
    put(tmp_path / "VOC/ImageSets/Main/train.txt", "1\nother\n")
    put(tmp_path / "VOC/SegmentationClass/0.png", encode(shown))
    layout = look(tmp_path)
    assert (len(layout.truth.names), layout.truth.names[15], layout.truth.colours[15]) == (
        21,
        "person",
        (192, 128, 128),
    )
    np.testing.assert_array_equal(read(layout)["VOC/JPEGImages/1.jpg"], mask)
    assert (splits(layout), len(layout.found)) == ({"train": 1, "val": 1}, 2)
    assert any("other.jpg" in note and "left aside" in note for note in layout.notes)
    put(tmp_path / "VOC/SegmentationClass/0.png", encode(shown.convert("RGB")))
    np.testing.assert_array_equal(  # the colour of the rim is black here: 255 has none in this palette
        read(look(tmp_path))["VOC/JPEGImages/1.jpg"], mask
    )


@pytest.mark.parametrize("kind", ["L", "1", "RGB", "LA"])
def test_black_and_white_is_two_classes(kind: str, tmp_path: Path) -> None:
    white = Image.fromarray((classes(1, 2) * 255).astype(np.uint8)).convert(kind)
    for i in range(2):
        put(tmp_path / f"images/{i}.jpg", image(i))
        put(tmp_path / f"masks/{i}.png", encode(white))
    layout = look(tmp_path)
    assert (layout.truth.names, layout.truth.values) == (("background", "foreground"), (0, 255))
    assert "The masks hold 0 and 255 alone: two classes, background and foreground." in layout.notes
    np.testing.assert_array_equal(read(layout)["images/0.jpg"], classes(1, 2))
    put(tmp_path / "classes.txt", "polyp\n")
    assert look(tmp_path).truth.names == ("background", "polyp")


def test_what_a_table_leaves_out_is_void_and_said(tmp_path: Path) -> None:
    for i in range(2):
        put(tmp_path / f"images/{i}.jpg", image(i))
        put(tmp_path / f"masks/{i}.png", encode(classes(i)))
    put(tmp_path / "classes.txt", "road\ncar\n")
    layout = look(tmp_path)
    assert layout.notes == (
        "The value 2 has no name in classes.txt: it is taken for void (33.3% of the pixels).",
    )
    np.testing.assert_array_equal(read(layout)["images/0.jpg"], np.array([0, 1, VOID], np.uint8)[classes(0)])
    put(tmp_path / "classes.txt", "1 road\n2 car\n")
    assert read(look(tmp_path))["images/0.jpg"][0, 0] == VOID
    for i in range(2):
        put(tmp_path / f"masks/{i}.png", coloured(classes(i), [(9, 9, 200), (0, 0, 0), (7, 0, 0)]))
    put(tmp_path / "classes.txt", "road 9 9 200\ncar 7 0 0\n")
    layout = look(tmp_path)
    assert "Black has no name in classes.txt: it is taken for void (33.3% of the pixels)." in layout.notes
    np.testing.assert_array_equal(read(layout)["images/0.jpg"], np.array([0, VOID, 1], np.uint8)[classes(0)])


def test_masks_without_a_table(tmp_path: Path) -> None:
    for i in range(2):
        put(tmp_path / f"images/{i}.jpg", image(i))
        put(tmp_path / f"masks/{i}.png", coloured(classes(i), COLOURS))
    layout = look(tmp_path)
    assert layout.truth.names == ("#00008e", "#4682b4", "#804080")
    assert "Name them in classes.txt" in layout.notes[0]
    put(tmp_path / "classes.txt", "sky\nroad\ncar\n")
    assert look(tmp_path).truth == Truth("mask")  # a task of one's own may read them
    with pytest.raises(
        DataError, match=r"masks in colours \(#.* classes\.txt names no colours.*road 128 64 128"
    ):
        prepare(tmp_path)
    for i in range(2):
        put(tmp_path / f"masks/{i}.png", encode(np.arange(2400, dtype=np.uint16).reshape(SIZE) // 40))
    (tmp_path / "classes.txt").unlink()
    assert sniff(tmp_path).truth == Truth("instances", ("object",))
    layout = look(tmp_path, "segment")
    assert (layout.truth.names, "tell objects apart" in layout.notes[0]) == (
        ("background", "foreground"),
        True,
    )
    assert np.unique(read(layout)["images/0.jpg"]).tolist() == [0, 1]
    for i in range(2):
        put(tmp_path / f"masks/{i}.png", encode(np.array([0, 38, 113], np.uint8)[classes(i)]))
    layout = look(tmp_path)
    assert (layout.truth.names, layout.truth.values) == (("class 0", "class 38", "class 113"), (0, 38, 113))
    np.testing.assert_array_equal(read(layout)["images/1.jpg"], classes(1))


def test_masks_that_count_from_1_are_not_learnt_one_class_off(tmp_path: Path) -> None:
    for i in range(2):
        put(tmp_path / f"images/{i}.jpg", image(i))
        put(tmp_path / f"masks/{i}.png", encode(classes(i) + np.uint8(1)))
    put(tmp_path / "classes.txt", "ground\ndisc\nsquare\n")
    way = r"begin at 1 and end at 3, and classes\.txt names 3 classes without numbers.*`1 ground`, `2 disc`, `3 square`"
    with pytest.raises(DataError, match=way):
        prepare(tmp_path, LayoutOptions(layout="masks"))
    put(tmp_path / "classes.txt", "1 ground\n2 disc\n3 square\n")
    np.testing.assert_array_equal(read(look(tmp_path))["images/1.jpg"], classes(1))


def test_a_table_that_would_lose_a_class_is_refused_with_its_line(tmp_path: Path) -> None:
    for i in range(2):
        put(tmp_path / f"images/{i}.jpg", image(i))
        put(tmp_path / f"masks/{i}.png", encode(classes(i)))
    put(tmp_path / "classes.txt", "# mine\nground 0\ndisc 1\nsquare 1\n")
    with pytest.raises(DataError, match=r"number 1 twice in classes\.txt: of disc, and of square in line 4"):
        prepare(tmp_path, LayoutOptions(layout="masks"))
    for i in range(2):
        put(tmp_path / f"masks/{i}.png", coloured(classes(i), COLOURS))
    put(tmp_path / "classes.txt", "128 64 128 ground\n0 0 142 disc\n70 130 300 square\n")
    with pytest.raises(DataError, match=r"colour 70 130 300 of square in line 3 of classes\.txt, and 300 is"):
        prepare(tmp_path, LayoutOptions(layout="masks"))
    put(tmp_path / "classes.txt", "128 64 128 ground\n0 0 142 disc\n0 0 142 square\n")
    with pytest.raises(
        DataError, match=r"colour 0 0 142 twice in classes\.txt: of disc, and of square in line 3"
    ):
        prepare(tmp_path, LayoutOptions(layout="masks"))


def test_smoothed_masks_are_of_two_classes_and_kept_out_with_the_way_out(tmp_path: Path) -> None:
    for i in range(6):
        put(tmp_path / f"images/{i}.jpg", image(i, size=(64, 96)))
        y, x = np.mgrid[:16, :24]
        disc = Image.fromarray((((y - 8) ** 2 + (x - 8 - i) ** 2 < 40) * 255).astype(np.uint8))
        smoothed = disc.resize((96, 64), Image.Resampling.BILINEAR)
        put(
            tmp_path / f"masks/{i}.png",
            encode(smoothed if i < 4 else smoothed.point(lambda v: 255 * (v > 127))),
        )
    layout = look(tmp_path)
    assert (layout.truth.names, layout.truth.values) == (("background", "foreground"), (0, 255))
    assert any(
        "smoothed edges, and of no class" in note and "-threshold 50%" in note for note in layout.notes
    )
    prepared, found = checked(tmp_path)
    assert found["smoothed mask"].ids == tuple(f"images/{i}.jpg" for i in range(4))
    assert "-threshold 50% masks/*.png (ImageMagick)." in found["smoothed mask"].text
    assert "unknown values" not in found
    assert prepared.manifest.states()["kept"] == 2


# Outlines


def square(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def coco(root: Path) -> dict[str, Any]:
    for i in range(2):
        put(root / f"images/{i}.jpg", image(i))
    runs = mask_files.to_runs(classes(0) == 2)
    return {
        "images": [{"id": 5 + i, "file_name": f"{i}.jpg", "height": 40, "width": 60} for i in range(2)],
        "categories": [{"id": 9, "name": "car"}, {"id": 3, "name": "road"}],
        "annotations": [
            {"image_id": 5, "category_id": 9, "bbox": [4, 4, 6, 6], "segmentation": [square(4, 4, 10, 10)]},
            {
                "image_id": 5, "category_id": 3, "bbox": [0, 0, 30, 30],
                "segmentation": [square(0, 0, 30, 20), square(0, 25, 30, 30)],
            },
            {"image_id": 6, "category_id": 3, "bbox": [40, 0, 20, 40], "segmentation": runs},
            {"image_id": 6, "category_id": 9, "bbox": [0, 0, 5, 5], "segmentation": [square(0, 0, 5, 5)], "iscrowd": 1},
        ],
    }  # fmt: skip


def test_outlines_of_coco_are_masks_where_these_are_asked_for(tmp_path: Path) -> None:
    put(tmp_path / "instances.json", json.dumps(coco(tmp_path)))
    assert sniff(tmp_path).name == "boxes"
    with pytest.raises(
        DataError,
        match=r"holds boxes \(COCO, .* as masks: --task segment\. As classification .*--layout crops\.",
    ):
        prepare(tmp_path, task="classify")
    for layout in (look(tmp_path, layout="masks"), sniff(tmp_path, task="segment")):
        assert layout.truth.names == ("background", "car", "road")
        found = read(layout)
        want = np.zeros(SIZE, np.uint8)
        want[:20, :30] = want[25:30, :30] = 2
        want[4:10, 4:10] = 1  # the smaller one on top
        np.testing.assert_array_equal(found["images/0.jpg"], want)
        want = np.where(classes(0) == 2, 2, 0).astype(np.uint8)
        want[:5, :5] = VOID
        np.testing.assert_array_equal(found["images/1.jpg"], want)
    wrong = coco(tmp_path)
    wrong["annotations"][2]["segmentation"]["size"] = [60, 40]
    put(tmp_path / "instances.json", json.dumps(wrong))
    prepared = prepare(tmp_path, task="segment")
    (row,) = prepared.manifest.rows(state="quarantined")
    assert (row.id, "holds run lengths" in row.reason, "Write them again" in row.reason) == (
        "images/1.jpg",
        True,
        True,
    )


def test_a_named_task_answers_the_question_of_two_readings(tmp_path: Path) -> None:
    for name in ("ill", "well"):
        for i in range(2):
            put(tmp_path / f"{name}/images/{i}.png", image(i + 5 * len(name), "PNG"))
            put(tmp_path / f"{name}/masks/{i}.png", encode((classes(i, 2) * 255).astype(np.uint8)))
    assert sniff(tmp_path).question is not None
    masks, folders = sniff(tmp_path, task="segment"), sniff(tmp_path, task="classify")
    assert (masks.truth.kind, folders.truth.kind) == ("mask", "class")
    assert (masks.question, folders.question) == (None, None)
    assert folders.classes == ["ill", "well"]
    assert len(folders.found) == len(masks.found) == 4


def test_labelme(tmp_path: Path) -> None:
    shapes = [
        {"label": "road", "points": [[0, 20], [60, 20], [60, 40], [0, 40]], "shape_type": "polygon"},
        {"label": "car", "points": [[10, 22], [20, 30]], "shape_type": "rectangle"},
        {"label": "__ignore__", "points": [[30, 0], [40, 10]], "shape_type": "rectangle"},
        {"label": "car", "points": [[3, 3]], "shape_type": "point"},
    ]
    for i in range(2):
        put(tmp_path / f"{i}.jpg", image(i))
        content = {
            "version": "5",
            "shapes": shapes[i:],
            "imagePath": f"..\\{i}.jpg",
            "imageHeight": 40,
            "imageWidth": 60,
        }
        put(tmp_path / f"{i}.json", json.dumps(content))
    layout = look(tmp_path)
    assert layout.truth.names == ("background", "car", "road")
    want = np.zeros(SIZE, np.uint8)
    want[20:] = 2
    want[22:30, 10:20] = 1
    want[:10, 30:40] = VOID
    np.testing.assert_array_equal(read(layout)["0.jpg"], want)
    assert "2 points left aside: no area." in layout.notes
    put(
        tmp_path / "1.json",
        '{"shapes": [{"label": "car"}], "imagePath": "1.jpg", "imageHeight": 40, "imageWidth": 60}',
    )
    with pytest.raises(DataError, match=r"1\.json lacks a part.*Export it again"):
        sniff(tmp_path, layout="masks")


def labelme(root: Path, name: str, **other: Any) -> None:
    """Write an image with LabelMe's file of one rectangle."""
    put(root / f"{name}.jpg", image(len(name) + ord(name[-1])))
    shape = {"label": "car", "points": [[10, 22], [20, 30]], "shape_type": "rectangle"}
    content = {"shapes": [shape], "imagePath": f"{name}.jpg", "imageHeight": 40, "imageWidth": 60}
    put(root / f"{name}.json", json.dumps(content | other))


def test_no_file_of_labelme_is_lost_without_a_word(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "e", "f", "g"):
        labelme(tmp_path, name)
    put(tmp_path / "b.json", "{broken")
    put(tmp_path / "c.json", '{"shapes": [], "imagePath": "c.jpg"')
    put(tmp_path / "d.json", '{"note": 1}')
    put(tmp_path / "stray.json", "{broken")
    (tmp_path / "e.json").unlink()
    labelme(tmp_path, "f", imageHeight=80, imageWidth=120)
    far = {"label": "car", "points": [[900, 900], [920, 930]], "shape_type": "rectangle"}
    labelme(tmp_path, "g", shapes=[far])
    prepared = prepare(tmp_path)
    rows = {row.id: row.reason for row in prepared.manifest.rows(state="quarantined")}
    assert set(rows) == {"b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"}
    assert "b.jpg has a broken JSON file, b.json (" in rows["b.jpg"]
    assert "c.jpg has a broken JSON file, c.json (" in rows["c.jpg"]
    assert "d.jpg has a JSON file not of LabelMe, d.json" in rows["d.jpg"]
    assert "e.jpg has no JSON file of LabelMe beside it" in rows["e.jpg"]
    assert rows["f.jpg"] == "a mask of 120 × 80 px for an image of 60 × 40"
    said = "\n".join(prepared.lines())
    assert "imageHeight" in said
    assert "1 JSON file broken or none of LabelMe left aside: stray.json." in said
    assert "1 outline wholly outside the image left aside: g.jpg." in said
    assert "1 image without an outline is background: g.jpg." in said


def listed(root: Path, names: list[str], **other: Any) -> dict[str, Any]:
    """Write a COCO file with a square for each image, the later the farther to the right, and return its content."""
    boxes = [[5 * i, 10, 5, 5] for i in range(len(names))]
    content = {
        "images": [{"id": i, "file_name": name, "height": 40, "width": 60} for i, name in enumerate(names)],
        "categories": [{"id": 3, "name": "road"}],
        "annotations": [
            {"id": 70 + i, "image_id": i, "category_id": 3, "bbox": box,
             "segmentation": [square(box[0], 10, box[0] + 5, 15)]}
            for i, box in enumerate(boxes)
        ],
    }  # fmt: skip
    put(root / "coco.json", json.dumps(content | other))
    return content


def test_images_of_one_name_in_two_folders_keep_their_outlines(tmp_path: Path) -> None:
    for i, name in enumerate(("a/0", "a/1", "b/0", "b/1")):
        put(tmp_path / f"images/{name}.jpg", image(i))
    listed(tmp_path, ["a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg"])
    found = read(look(tmp_path, layout="masks"))
    assert {name: int(mask[12].argmax()) for name, mask in found.items()} == {
        "images/a/0.jpg": 0, "images/a/1.jpg": 5, "images/b/0.jpg": 10, "images/b/1.jpg": 15,
    }  # fmt: skip
    listed(tmp_path, ["0.jpg", "a/1.jpg", "b/1.jpg"])
    layout = look(tmp_path, layout="masks")
    assert {one.id: one.trouble for one in layout.found if one.trouble} == {
        "0.jpg": "is listed in coco.json and may be images/a/0.jpg, images/b/0.jpg: write its folder there, too"
    }
    assert "2 images without annotations left aside: images/a/0.jpg, images/b/0.jpg." in layout.notes
    assert set(read(layout)) == {"images/a/1.jpg", "images/b/1.jpg"}
    assert [one.id for one in sniff(tmp_path, layout="crops").found if one.trouble] == ["0.jpg"]
    (tmp_path / "images/b/1.jpg").unlink()  # that of a alone is left: it is not taken for that of b
    layout = look(tmp_path, layout="masks")
    assert "1 image of coco.json not here: b/1.jpg." in layout.notes
    assert int(read(layout)["images/a/1.jpg"][12].argmax()) == 5
    (tmp_path / "images/a/1.jpg").rename(tmp_path / "images/1.jpg")
    assert {one.trouble for one in look(tmp_path, layout="masks").found if one.id == "images/1.jpg"} == {
        "is the only file for a/1.jpg and b/1.jpg of coco.json: put all of them there"
    }


def test_images_of_one_name_in_two_folders_of_cvat(tmp_path: Path) -> None:
    for i, name in enumerate(("a/0", "b/0", "b/1", "c/1")):
        put(tmp_path / f"images/{name}.jpg", image(i))
    polygon = '<polygon label="car" points="{x},10;{y},10;{y},20;{x},20"/>'
    listed = [
        f'<image name="{name}.jpg">{polygon.format(x=5 * i, y=5 * i + 5)}</image>'
        for i, name in enumerate(("a/0", "b/0", "1"))
    ]
    put(tmp_path / "annotations.xml", f"<annotations>{''.join(listed)}</annotations>")
    layout = look(tmp_path, layout="masks")
    found = {name: int(mask[12].argmax()) for name, mask in read(layout).items()}
    assert found == {"images/a/0.jpg": 0, "images/b/0.jpg": 5}
    assert [one.id for one in layout.found if one.trouble] == ["1.jpg"]


def test_what_coco_files_get_wrong_is_said_and_keeps_one_image_out(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(6)]
    for name in names:
        put(tmp_path / f"images/{name}", image(int(name[0])))
    content = listed(tmp_path, [*names[:5], "gone.jpg"])
    images, annotations = content["images"], content["annotations"]
    annotations[0]["category_id"] = 99
    annotations[1]["segmentation"] = [square(900, 900, 950, 950)]
    images[2]["height"] = 1000
    annotations[3]["image_id"] = 777
    annotations[4]["segmentation"] = square(20, 10, 25, 15)  # no list of lists
    put(tmp_path / "coco.json", json.dumps(content))
    prepared = prepare(tmp_path, task="segment")
    rows = {row.id: row.reason for row in prepared.manifest.rows(state="quarantined")}
    assert set(rows) == {"images/0.jpg", "images/2.jpg", "images/4.jpg"}
    assert "annotation 74 in coco.json whose segmentation is no list of polygons" in rows["images/4.jpg"]
    assert "has annotation 70 of the category 99, which coco.json does not name" in rows["images/0.jpg"]
    assert rows["images/2.jpg"] == "a mask of 60 × 1000 px for an image of 60 × 40"
    said = prepared.lines()
    for line in (
        "1 image of coco.json not here: gone.jpg.",
        "1 annotation of images that coco.json does not list left aside: image_id 777.",
        "1 image without annotations left aside: images/5.jpg.",
        "1 outline wholly outside the image left aside: images/1.jpg.",
        "2 images without an outline are background: images/1.jpg, images/3.jpg.",
    ):
        assert line in said


def test_shards_with_masks(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train-000.tar", "w") as shard:
        for i in range(2):
            for name, data in ((f"{i}.jpg", image(i)), (f"{i}.mask.png", encode(classes(i)))):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("classes.txt")
        info.size = 17
        shard.addfile(info, io.BytesIO(b"sky\nroad\nbicycle\n"))
    layout = look(tmp_path)
    assert (layout.name, layout.truth.names, splits(layout)) == (
        "webdataset",
        ("sky", "road", "bicycle"),
        {"train": 2},
    )
    np.testing.assert_array_equal(next(iter(read(layout).values())), classes(0))


# Medicine


def test_volumes_with_volumes_of_labels(tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    body = np.random.default_rng(0).integers(0, 900, (8, 6, 4)).astype(np.int16)
    label = np.zeros((8, 6, 4), np.uint8)
    label[2:5, 1:3, 1:3] = 2
    for i in range(3):
        for folder, array in (("imagesTr", body), ("labelsTr", label)):
            name = f"liver_{i}_0000.nii.gz" if folder == "imagesTr" else f"liver_{i}.nii.gz"
            (tmp_path / folder).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / folder / name)
    put(tmp_path / "dataset.json", json.dumps({"labels": {"background": 0, "liver": 1, "tumour": 2}}))
    layout = look(tmp_path)
    assert layout.truth.names == ("background", "liver", "tumour")
    assert (len(layout.found), len({entry.group for entry in layout.found})) == (12, 3)
    found = read(layout)
    np.testing.assert_array_equal(found["imagesTr/liver_1_0000.nii.gz!1"], np.rot90(label[:, :, 1]))
    nib.save(nib.Nifti1Image(label[..., :3], np.eye(4)), tmp_path / "labelsTr/liver_2.nii.gz")
    (bad,) = [entry for entry in look(tmp_path).found if entry.trouble]
    assert bad.trouble == "has 4 slices and its labels labelsTr/liver_2.nii.gz 3 slices"


def dicom(number: int, height: float, size: tuple[int, int] = (6, 8)) -> bytes:
    """Return a slice at a height in the body, columns to the left and rows to the back."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    file = pydicom.Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = CTImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
    file.Rows, file.Columns, file.SamplesPerPixel = *size, 1
    file.PhotometricInterpretation = "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
    file.ImagePositionPatient, file.ImageOrientationPatient = [0, 0, height], [1, 0, 0, 0, 1, 0]
    file.InstanceNumber = number
    file.PixelData = np.random.default_rng(number).integers(0, 900, size).astype(np.uint16).tobytes()
    data = io.BytesIO()
    file.save_as(data, enforce_file_format=True)
    return data.getvalue()


@pytest.mark.parametrize("written_by", ["dcm2niix", "SimpleITK", "upside down"])
def test_dicom_series_with_volumes_of_labels(written_by: str, tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    for i in range(4):  # called so that their names tell nothing; from the head downwards
        put(tmp_path / f"images/case1/{'dbca'[i]}.dcm", dicom(i + 1, 30.0 - 10 * i))
    true = np.zeros((4, 6, 8), np.uint8)  # by height, from the feet upwards
    for i in range(4):
        true[i, i : i + 2, : i + 1] = 1
    voxels = true.transpose(2, 1, 0)  # columns to the left, rows to the back
    affine = np.diag([-1.0, -1.0, 10.0, 1.0])
    if written_by == "dcm2niix":
        voxels, affine = voxels[:, ::-1], np.diag([-1.0, 1.0, 10.0, 1.0])
    elif written_by == "upside down":
        voxels, affine = voxels[::-1, :, ::-1], np.diag([1.0, -1.0, -10.0, 1.0])
    (tmp_path / "masks").mkdir()
    nib.save(nib.Nifti1Image(np.ascontiguousarray(voxels), affine), tmp_path / "masks/case1_seg.nii.gz")
    layout = look(tmp_path)
    assert layout.truth.names == ("background", "foreground")
    found = read(layout)
    for i in range(4):
        np.testing.assert_array_equal(found[f"images/case1/{'dbca'[3 - i]}.dcm"], true[i])
    assert {entry.group for entry in layout.found} == {"images/case1"}
    put(tmp_path / "images/case1/e.dcm", dicom(9, 40.0))
    assert {entry.trouble for entry in look(tmp_path).found} == {
        "is one of 5 slices, and its labels masks/case1_seg.nii.gz have 4"
    }


def test_dicom_pictures_with_png_masks(tmp_path: Path) -> None:
    for i in range(2):
        put(tmp_path / f"images/{i}.dcm", dicom(i, 0.0, SIZE))
        put(tmp_path / f"masks/{i}.png", encode(classes(i)))
    np.testing.assert_array_equal(read(look(tmp_path))["images/1.dcm"], classes(1))


def test_frames_of_videos_count_in_stretches(tmp_path: Path) -> None:
    """By names alone, said in a line; numbered images that are no frames stay by themselves."""

    def groups(names: list[str], **options: Any) -> tuple[int, int]:
        entries = tuple(Entry(f"images/{name}.png", f"images/{name}.png", "m.png") for name in names)
        tree = Tree.look(tmp_path, LayoutOptions(**options))
        found = with_frames(tree, Layout("masks", tmp_path, "", entries, truth=Truth("mask", ("a", "b"))))
        assert bool(found.notes) == any(one.group for one in found.found)
        return len({one.group for one in found.found} - {""}), sum(map(len, found.notes))

    put(tmp_path / "a.png", image(0, "PNG"))
    videos = [f"00{video}TP_{30 * i:06}" for video in range(3) for i in range(24)]
    assert groups(videos)[0] == 9
    assert groups(videos, groups="none") == (0, 0)
    assert groups([f"seq{video}_f{i:04}" for video in range(12) for i in range(8)])[0] == 12
    for names in (
        [f"img_{i:04}" for i in range(40)],
        [f"{year}_{i * i:06}" for year in (2007, 2008, 2009) for i in range(20)],
        [f"ISIC_{i * 37 % 1009:07}" for i in range(40)],
        [f"img{i % 3}_{i * i * 7 % 499:04}" for i in range(40)],
    ):
        assert groups(names) == (0, 0)


# Another source than the one that was learned from


def test_classes_of_another_source_are_matched_by_their_names(tmp_path: Path) -> None:
    learnt = SegmentTargets(Truth("mask", ("sky", "road", "car")))
    put(tmp_path / "images/0.jpg", image(0))
    put(tmp_path / "masks/0.png", encode(classes(0)))
    put(tmp_path / "classes.txt", "car\nvoid\nroad\n")
    layout = look(tmp_path)
    rows = [Row(entry.id, entry.path, target=entry.target) for entry in layout.entries()]
    learnt.follow_header(layout.truth, rows)
    assert learnt.truth.names == ("sky", "road", "car")
    np.testing.assert_array_equal(
        learnt.read(rows[0], tmp_path), np.array([2, VOID, 1], np.uint8)[classes(0)]
    )
    put(tmp_path / "masks/0.png", coloured(classes(0), COLOURS))
    put(tmp_path / "classes.txt", "car 128 64 128\nroad 70 130 180\nvoid 0 0 142\n")
    learnt.follow_header(look(tmp_path).truth, rows)
    np.testing.assert_array_equal(
        learnt.read(rows[0], tmp_path), np.array([2, VOID, 1], np.uint8)[classes(0)]
    )
    painted = [rows[0]._replace(target='{"size": [40, 60], "objects": []}')]
    with pytest.raises(
        DataError,
        match="outside all outlines are 'background' here, but the first class of the model is 'sky'",
    ):
        learnt.follow_header(Truth("mask", ("background", "car")), painted)


# What is wrong with them


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """Twelve images with masks of three classes."""
    root = tmp_path / "street"
    for i in range(12):
        put(root / f"images/{i}.jpg", image(i))
        put(root / f"masks/{i}.png", encode(classes(i)))
    put(root / "classes.txt", "road\ncar\npole\n")
    return root


def checked(root: Path) -> tuple[Prepared, dict[str, Any]]:
    prepared = prepare(root)
    return prepared, {one.kind: one for one in prepared.report.findings}


def test_areas_and_strata_of_a_clean_set(street: Path) -> None:
    put(street / "masks/3.png", encode(np.zeros(SIZE, np.uint8)))
    prepared, found = checked(street)
    assert set(found) == {"class areas"}
    table = {row["class"]: (row["pixels"], row["images"]) for row in found["class areas"].table}
    assert table == {"road": (800 * 11 + 2400, 12), "car": (800 * 11, 11), "pole": (800 * 11, 11)}
    assert found["class areas"].text == "Of 28,800 pixels: road 38.9%, pole 30.6%, car 30.6%."
    counts = prepared.manifest.counts(prepared.targets)
    assert {name: sum(own[name] for own in counts.values()) for name in ("road", "car", "pole")} == {
        "road": 12, "car": 11, "pole": 11,
    }  # fmt: skip


def test_every_fault_is_named_with_its_files(street: Path) -> None:
    strange = classes(0).copy()
    strange[0, :7], strange[1, :2] = 9, 200
    put(street / "masks/0.png", encode(strange))
    (street / "masks/1.png").unlink()
    put(street / "masks/2.png", encode(classes(2, size=(20, 30))))
    (street / "masks/3.png").unlink()
    put(street / "masks/3.jpg", image(3))
    put(street / "masks/4.png", encode(np.full(SIZE, VOID, np.uint8)))
    put(street / "masks/5.png", b"nothing")
    put(street / "masks/lost.png", encode(classes(1)))
    put(street / "classes.txt", "road\ncar\npole\ntram\n")
    prepared, found = checked(street)
    rows = {row.id: row for row in prepared.manifest.rows(state=None)}
    assert rows["images/0.jpg"].reason == "a mask with 9 (7 px), 200 (2 px), which belongs to no class"
    assert rows["images/1.jpg"].reason == "no mask"
    assert rows["images/2.jpg"].reason == "a mask of 30 × 20 px for an image of 60 × 40"
    assert rows["images/3.jpg"].reason == "a mask in JPEG, which changes class numbers"
    assert rows["images/4.jpg"].reason == "a mask that is void everywhere"
    assert rows["images/5.jpg"].reason == (
        "masks/5.png is no mask that can be read (no image of a known kind). Save it as PNG"
    )
    assert "1 mask whose image is not here left aside: masks/lost.png." in prepared.lines()
    assert len(rows) == 12  # a mask without its image is none
    assert {row.id for row in rows.values() if row.state == "kept"} == {
        f"images/{i}.jpg" for i in range(6, 12)
    }
    assert found["unknown values"].text == "Of no class: 9 (7 px in 1 mask), 200 (2 px in 1 mask)."
    assert found["absent class"].text.startswith("No mask contains tram, so it cannot be learned.")
    assert found["lossy mask"].ids == ("images/3.jpg",)
    assert "mogrify" in found["lossy mask"].text


def test_a_colour_of_no_class_is_counted(street: Path) -> None:
    for i in range(12):
        put(street / f"masks/{i}.png", coloured(classes(i), COLOURS))
    odd = np.array(COLOURS, np.uint8)[classes(0)]
    odd[:2, :3] = (1, 2, 3)
    put(street / "masks/0.png", encode(odd))
    put(street / "classes.txt", "road 128 64 128\ncar 0 0 142\npole 70 130 180\n")
    _, found = checked(street)
    assert found["unknown values"].table == ({"value": "#010203", "pixels": 6, "masks": 1},)
    assert found["mask values"].ids == ("images/0.jpg",)


def turned(array: Array, orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(Image.fromarray(array), kind, exif=exif)


def test_an_exif_turn_of_one_alone(street: Path) -> None:
    put(street / "images/0.jpg", turned(scene(0, SIZE), 6, "JPEG"))  # upright 60 x 40; its mask lies
    put(
        street / "images/1.jpg", turned(scene(1, (60, 40)), 6, "JPEG")
    )  # its mask was drawn on the upright one
    put(street / "images/2.jpg", turned(scene(2, SIZE), 3, "JPEG"))  # a size tells nothing of half a turn
    put(street / "images/3.jpg", turned(scene(3, SIZE), 6, "JPEG"))  # both are turned
    put(street / "masks/3.png", turned(classes(3), 6, "PNG"))
    put(street / "masks/4.png", turned(classes(4, size=(40, 60)), 8, "PNG"))
    prepared, found = checked(street)
    rows = {row.id: row for row in prepared.manifest.rows(state=None)}
    assert rows["images/0.jpg"].reason == "a rotated mask: an EXIF tag rotates only the image"
    assert rows["images/4.jpg"].reason == "a rotated mask: an EXIF tag rotates only the mask"
    assert found["mask turn kept"].ids == ("images/1.jpg", "images/2.jpg")
    assert {rows[f"images/{i}.jpg"].state for i in (1, 2, 3)} == {"kept"}
    np.testing.assert_array_equal(
        prepared.targets.read(rows["images/3.jpg"], street), np.rot90(classes(3), -1)
    )


def test_twins_whose_masks_differ(street: Path) -> None:
    for name, mask in (("same", classes(0)), ("other", classes(2))):
        put(street / f"images/{name}.jpg", image(0 if name == "same" else 1))
        put(street / f"masks/{name}.png", encode(mask))
    prepared, found = checked(street)
    assert set(found["conflict"].ids) == {"images/1.jpg", "images/other.jpg"}
    states = {row.id: row.state for row in prepared.manifest.rows(state=None)}
    assert (states["images/same.jpg"], states["images/other.jpg"]) == ("kept", "quarantined")


def test_a_set_of_jpeg_masks_is_refused_by_name(tmp_path: Path) -> None:
    for i in range(2):
        put(tmp_path / f"images/{i}.jpg", image(i))
        put(tmp_path / f"masks/{i}.jpg", image(i + 5))
    with pytest.raises(
        DataError, match=r"a mask in JPEG, which changes class numbers: images/0\.jpg.*mogrify.*[^.]\.$"
    ):
        prepare(tmp_path)
    for i in range(2):  # as the way out leaves them
        put(tmp_path / f"masks/{i}.png", encode((classes(i, 2) * 255).astype(np.uint8)))
    assert prepare(tmp_path).manifest.states()["kept"] == 2


def test_the_page_shows_masks_and_areas(street: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = street.parent / "check.html"
    put(street / "masks/2.png", encode(classes(2, size=(20, 30))))
    assert run(["check", str(street), "--html", str(page)]) == 0
    assert "a mask of 30 × 20 px for an image of 60 × 40: images/2.jpg" in capsys.readouterr().out
    html = page.read_text(encoding="utf-8")
    assert "<h3>Pixels of each class</h3>" in html
    assert "33.33 %" in html
    assert html.count("data:image/jpeg") > 10
    assert 'class="legend"' in html
    assert run(["check", str(street), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (areas,) = [one["table"] for one in told["findings"] if one["kind"] == "class areas"]
    assert [row["class"] for row in areas] == ["road", "car", "pole"]


def test_real_masks_need_no_option(shared: Any) -> None:
    layout = look(shared("data/camvid-320.zip"))
    assert (len(layout.truth.names), layout.truth.names[2]) == (11, "pole")
    assert splits(layout) == {"train": 367, "val": 101}
    assert (
        "The value 11 has no name in classes.txt: it is taken for void (3.5% of the pixels)." in layout.notes
    )
    nuclei = look(shared("data/nuclei.zip"), "segment")
    (mask,) = read(nuclei).values()
    assert (mask.shape, np.unique(mask).tolist()) == ((512, 512), [0, 1])
