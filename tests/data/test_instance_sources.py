"""Objects with masks from every kind of source, made small: read to the pixel, and what is wrong with them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import encode, put, scene
from PIL import Image

from vitrail.core.errors import DataError, SettingError, UnknownNameError
from vitrail.data.instances import Instances, from_runs, to_runs
from vitrail.data.layouts import Layout, sniff
from vitrail.data.manifest import Row
from vitrail.data.options import LayoutOptions
from vitrail.data.prepare import Prepared, prepare
from vitrail.data.truth import Truth
from vitrail.tasks.instances.targets import InstanceTargets
from vitrail.tasks.panoptic.targets import PanopticTargets

Array = NDArray[Any]
SIZE = (41, 61)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


def image(seed: int, kind: str = "JPEG") -> bytes:
    return encode(scene(seed, SIZE), kind)


def disc(x: float, y: float, radius: float) -> NDArray[np.bool_]:
    at_y, at_x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    return np.hypot(at_x - x, at_y - y) <= radius


def shapes(seed: int = 0) -> list[NDArray[np.bool_]]:
    """Return a ring, an object in two pieces, and two that touch."""
    x = 3 * (seed % 4)
    ring = disc(12 + x, 12, 10) & ~disc(12 + x, 12, 5)
    pieces = disc(5, 33, 4) | disc(52, 8, 5)
    left, right = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    left[28:36, 20:30], right[28:36, 30:41] = True, True
    return [ring, pieces, left, right]


def label_map(masks: list[NDArray[np.bool_]], dtype: Any = np.uint16, first: int = 1) -> Array:
    found = np.zeros(SIZE, dtype)
    for number, mask in enumerate(masks, first):
        found[mask] = number
    return found


def tiff(array: Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "TIFF")
    return file.getvalue()


def npy(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def read(layout: Layout) -> dict[str, Instances]:
    """Return the objects of every image by its name."""
    targets = InstanceTargets(layout.truth)
    return {
        entry.id: targets.read(Row(entry.id, entry.path, target=entry.target), layout.root)
        for entry in layout.entries()
        if entry.target and not entry.trouble
    }


def same(found: Instances, masks: list[NDArray[np.bool_]]) -> None:
    """Check that these are the masks of the objects, in any order."""
    drawn = from_runs(found.masks, SIZE)
    assert len(drawn) == len(masks)
    assert sorted(one.tobytes() for one in drawn) == sorted(one.tobytes() for one in masks)


def look(root: Path, task: str | None = "instances", **options: Any) -> Layout:
    layout = sniff(root, LayoutOptions(**options), task=task)
    assert layout.truth.kind == "instances"
    return layout


# Label maps


@pytest.mark.parametrize(
    ("suffix", "write", "dtype"),
    [
        ("tif", tiff, np.uint16),
        ("png", encode, np.uint16),
        ("png", encode, np.uint8),
        ("tif", tiff, np.int32),
        ("npy", npy, np.int64),
    ],
)
@pytest.mark.parametrize(
    "folders", ["images/{}.jpg masks/{}.{}", "images/{}.jpg labels/{}.{}", "{}.jpg {}_label.{}"]
)
def test_label_maps_are_objects(tmp_path: Path, suffix: str, write: Any, dtype: Any, folders: str) -> None:
    picture, mask = folders.split()
    for i in range(3):
        put(tmp_path / picture.format(i), image(i))
        put(tmp_path / mask.format(i, suffix), write(label_map(shapes(i), dtype)))
    layout = look(tmp_path)
    assert layout.truth == Truth("instances", ("object",))
    assert layout.notes[0].startswith("12 objects in 3 images. Each number of a mask is one object")
    for i, found in read(layout).items():
        same(found, shapes(int(Path(i).stem)))
        assert not found.boxes.crowd.any()


def test_numbers_that_count_objects_are_known_and_those_of_classes_are_not(tmp_path: Path) -> None:
    for i in range(8):
        masks = [disc(6 + 8 * (k % 7), 6 + 9 * (k // 7), 3) for k in range(3 + 2 * i)]
        put(tmp_path / f"cells/images/{i}.jpg", image(i))
        put(tmp_path / f"cells/masks/{i}.png", encode(label_map(masks)))
        put(tmp_path / f"roads/images/{i}.jpg", image(i))
        put(
            tmp_path / f"roads/masks/{i}.png", encode(label_map(masks[:3], np.uint8))
        )  # 0 to 3 in all of them
    assert len(read(look(tmp_path / "cells", None))["images/2.jpg"].masks) == 7
    assert sniff(tmp_path / "roads").truth.kind == "mask"
    assert look(tmp_path / "roads").truth == Truth("instances", ("object",))  # as it is asked
    assert sniff(tmp_path / "cells", task="segment").truth == Truth("mask", ("background", "foreground"))
    assert look(tmp_path / "cells", "detect").truth.kind == "instances"
    lines = prepare(tmp_path / "cells").lines()
    assert any("Objects: 80 object in 8 images." in line for line in lines)


def test_many_numbers_are_objects_of_the_one_class_that_a_table_names(tmp_path: Path) -> None:
    put(tmp_path / "classes.txt", "nucleus\n")
    put(tmp_path / "images/1.jpg", image(1))
    put(tmp_path / "masks/1.png", encode(label_map(shapes(), np.uint8)))
    assert look(tmp_path, None).truth == Truth("instances", ("nucleus",))
    segment = sniff(tmp_path, task="segment")
    assert segment.truth == Truth("mask", ("background", "nucleus"))
    assert '"nucleus"' in segment.found[0].target


def test_the_border_of_objects_is_void_and_255_objects_are_not(tmp_path: Path) -> None:
    bordered = label_map(shapes(), np.uint8)
    bordered[0] = 255
    put(tmp_path / "images/1.jpg", image(1))
    put(tmp_path / "masks/1.png", encode(bordered))
    assert len(read(look(tmp_path))["images/1.jpg"].masks) == 4
    full = np.zeros(SIZE, np.uint8).ravel()
    full[:255] = np.arange(1, 256)
    put(tmp_path / "masks/1.png", encode(full.reshape(SIZE)))
    assert len(read(look(tmp_path))["images/1.jpg"].masks) == 255


def test_a_map_with_more_numbers_than_objects_can_be_is_kept_out(tmp_path: Path) -> None:
    put(tmp_path / "images/1.jpg", encode(scene(1, (300, 300)), "JPEG"))
    put(tmp_path / "masks/1.npy", npy(np.arange(90_000, dtype=np.int32).reshape(300, 300)))
    (entry,) = look(tmp_path).found
    assert "90,000 different numbers" in entry.trouble
    assert "65,535" in entry.trouble


# Pieces


def test_pieces_of_two_colours_are_objects_and_it_is_said(tmp_path: Path) -> None:
    ring, pieces, left, right = shapes()
    specked = (ring | pieces | left | right) * np.uint8(255)
    specked[40, 60] = 255
    put(tmp_path / "images/1.jpg", image(1))
    put(tmp_path / "masks/1.png", encode(specked))
    layout = look(tmp_path)
    same(read(layout)["images/1.jpg"], [ring, disc(5, 33, 4), disc(52, 8, 5), left | right])
    assert "tell no objects apart" in layout.notes[0]
    assert "1 piece of fewer than 4 pixels left aside." in layout.notes
    specked[0, :9] = np.arange(9) * 20 + 40
    put(tmp_path / "masks/1.png", encode(specked))
    (entry,) = look(tmp_path).found
    assert "smoothed edges" in entry.trouble


def test_pieces_of_classes_are_objects_of_those_that_are_things(tmp_path: Path) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[:20] = 1
    for number, own in zip((2, 2, 3), (disc(10, 10, 5), disc(30, 10, 6), disc(30, 32, 6)), strict=True):
        mask[own] = number
    mask[38:] = 255
    put(tmp_path / "classes.txt", "background\nsky\ncar\nman\n")
    put(tmp_path / "images/1.jpg", image(1))
    put(tmp_path / "masks/1.png", encode(mask))
    layout = look(tmp_path)
    assert layout.truth.names == ("sky", "car", "man")
    assert "connected piece of sky, car, man" in layout.notes[0]
    assert read(layout)["images/1.jpg"].boxes.kinds.tolist() == [0, 1, 1, 2]
    things = look(tmp_path, things="man, car")
    assert things.truth.names == ("car", "man")
    assert "--things: 1 class left aside: sky." in things.notes
    same(read(things)["images/1.jpg"], [disc(10, 10, 5), disc(30, 10, 6), disc(30, 32, 6)])
    with pytest.raises(UnknownNameError, match="cat"):
        look(tmp_path, things="cat")
    with pytest.raises(SettingError, match="--things names classes of objects"):
        sniff(tmp_path, LayoutOptions(things="car"))


def test_one_file_an_object_and_one_file_a_class(tmp_path: Path) -> None:
    for i, mask in enumerate(shapes()):
        put(tmp_path / f"one/images/{i % 2}.png", image(i % 2, "PNG"))
        put(tmp_path / f"one/masks/{i % 2}_{i}.png", encode(mask * np.uint8(255)))
        put(tmp_path / f"class/images/{i}.png", image(i, "PNG"))
        for name in ("car", "man"):
            put(
                tmp_path / f"class/masks/{name}/{i}.png",
                encode((mask if name == "car" else disc(30, 20, 4)) * np.uint8(255)),
            )
    found = read(look(tmp_path / "one"))
    same(found["images/0.png"], shapes()[::2])
    same(found["images/1.png"], shapes()[1::2])
    assert sniff(tmp_path / "one").truth.kind == "mask"
    layout = look(tmp_path / "class")
    assert layout.truth.names == ("car", "man")
    assert read(layout)["images/1.png"].boxes.kinds.tolist() == [0, 0, 1]  # the one in two pieces is two


def test_a_folder_of_instances_comes_before_one_of_classes(tmp_path: Path) -> None:
    put(tmp_path / "images/1.jpg", image(1))
    put(tmp_path / "masks/1.png", encode(disc(10, 10, 5) * np.uint8(255)))
    put(tmp_path / "instances/1.png", encode(label_map(shapes())))
    same(read(look(tmp_path))["images/1.jpg"], shapes())
    assert sniff(tmp_path).truth == Truth("mask", ("background", "foreground"), values=(0, 255))


# Outlines


def coco(masks: dict[str, Any]) -> str:
    """Return a COCO file of one image with annotations by name: their `segmentation` and more."""
    categories = [{"id": 1, "name": "cell"}]
    annotations = [
        {"id": i, "image_id": 7, "category_id": 1, "bbox": [0, 0, 5, 5], **one}
        for i, one in enumerate(masks.values())
    ]
    images = [{"id": 7, "file_name": "7.jpg", "height": SIZE[0], "width": SIZE[1]}]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def test_coco_has_polygons_run_lengths_and_crowds(tmp_path: Path) -> None:
    ring, pieces, left, _ = shapes()
    text, numbers = to_runs(ring[None])[0].to_dict(), {"size": list(SIZE), "counts": [0, 41, 41 * 60]}
    square = {"segmentation": [[20, 28, 30, 28, 30, 36, 20, 36]], "bbox": [20, 28, 10, 8]}
    put(tmp_path / "7.jpg", image(7))
    put(
        tmp_path / "a.json",
        coco({
            "text": {"segmentation": text}, "numbers": {"segmentation": numbers, "iscrowd": 1}, "polygon": square,
            "pieces": {"segmentation": to_runs(pieces[None])[0].to_dict()}, "bare": {"bbox": [40, 20, 10, 10]},
        }),
    )  # fmt: skip
    (found,) = read(look(tmp_path)).values()
    column, box = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    column[:, 0], box[20:30, 40:50] = True, True
    same(found, [ring, column, left, pieces, box])
    assert found.boxes.crowd.tolist() == [False, True, False, False, True]
    assert sniff(tmp_path).truth.kind == "boxes"
    with pytest.raises(DataError, match="as objects: --task instances; as masks: --task segment"):
        prepare(tmp_path, task="classify")
    (tmp_path / "a.json").write_text(coco({"bare": {"bbox": [40, 20, 10, 10]}}))
    with pytest.raises(DataError, match="no outline of any object"):
        prepare(tmp_path, task="instances")


def test_yolo_has_polygons_in_shares(tmp_path: Path) -> None:
    put(tmp_path / "images/1.jpg", image(1))
    put(tmp_path / "labels/1.txt", "0 0.2 0.2 0.6 0.2 0.6 0.6 0.2 0.6\n")
    put(tmp_path / "data.yaml", "names: [cell]\n")
    (found,) = read(look(tmp_path)).values()
    mask = from_runs(found.masks, SIZE)[0]
    assert mask[9:24, 13:36].all()
    assert abs(mask.sum() - 0.16 * mask.size) < 40


def test_cvat_has_polygons_and_masks(tmp_path: Path) -> None:
    put(tmp_path / "1.jpg", image(1))
    put(
        tmp_path / "annotations.xml",
        f'<annotations><image id="0" name="1.jpg" width="{SIZE[1]}" height="{SIZE[0]}">'
        '<polygon label="cell" points="20,28;30,28;30,36;20,36"/>'
        '<mask label="core" rle="1, 2, 3" left="50" top="4" width="3" height="2"/></image></annotations>',
    )
    layout = look(tmp_path)
    (found,) = read(layout).values()
    mask = np.zeros(SIZE, bool)
    mask[4, 51:53] = True
    same(found, [shapes()[2], mask])
    assert layout.truth.names == ("cell", "core")


def labelme(*shapes_of: dict[str, Any]) -> str:
    return json.dumps(
        {"imagePath": "1.jpg", "imageHeight": SIZE[0], "imageWidth": SIZE[1], "shapes": list(shapes_of)}
    )


def test_labelme_has_objects_and_groups_of_pieces(tmp_path: Path) -> None:
    square = {"label": "cell", "shape_type": "polygon", "points": [[20, 28], [30, 28], [30, 36], [20, 36]]}
    other = {"label": "cell", "shape_type": "rectangle", "points": [[40, 4], [50, 9]]}
    inner = base64.b64encode(encode(np.full((5, 10), 255, np.uint8))).decode()
    painted = {"label": "cell", "shape_type": "mask", "points": [[2, 3], [11, 7]], "mask": inner}
    void = {"label": "ignore", "shape_type": "rectangle", "points": [[0, 0], [5, 5]]}
    put(tmp_path / "1.jpg", image(1))
    put(tmp_path / "1.json", labelme(square, other, painted, void))
    layout = look(tmp_path)
    assert layout.truth.names == ("cell",)
    assert "1 outline called void or background left aside." in layout.notes
    rectangle, mask = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    rectangle[4:9, 40:50], mask[3:8, 2:12] = True, True
    same(read(layout)["1.jpg"], [shapes()[2], rectangle, mask])
    grouped = [one | {"group_id": 4} for one in (square, other, painted)]
    put(tmp_path / "1.json", labelme(*grouped[:2], square | {"label": "core", "group_id": 4}))
    same(read(look(tmp_path))["1.jpg"], [shapes()[2] | rectangle, shapes()[2]])
    put(tmp_path / "1.json", labelme(*grouped))
    same(read(look(tmp_path))["1.jpg"], [shapes()[2] | rectangle | mask])
    assert sniff(tmp_path).truth.kind == "mask"
    assert "group" not in sniff(tmp_path).found[0].target


# Panoptic


def panoptic(root: Path, *, name: str = "panoptic_train.json") -> Array:
    """Write a set of one image with COCO's panoptic segments, and return the numbers of its pixels."""
    ring, pieces, left, right = shapes()
    numbers = np.full(SIZE, 70_000, np.int64)
    for number, mask in zip((5, 300, 1, 2), (ring, pieces, left, right), strict=True):
        numbers[mask] = number
    numbers[:, 60] = 0
    colours = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65_536], -1).astype(np.uint8)
    segments = [
        {"id": 5, "category_id": 1}, {"id": 300, "category_id": 1}, {"id": 1, "category_id": 3},
        {"id": 2, "category_id": 3, "iscrowd": 1}, {"id": 70_000, "category_id": 2}, {"id": 9, "category_id": 1},
    ]  # fmt: skip
    categories = [
        {"id": 1, "name": "cell", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0},
        {"id": 3, "name": "car", "isthing": 1},
    ]  # fmt: skip
    content = {
        "images": [{"id": 4, "file_name": "4.png", "height": SIZE[0], "width": SIZE[1]}],
        "annotations": [{"image_id": 4, "file_name": "4.png", "segments_info": segments}],
        "categories": categories,
    }
    put(root / "train/4.png", image(4, "PNG"))
    put(root / f"annotations/{name.removesuffix('.json')}/4.png", encode(colours))
    put(root / f"annotations/{name}", json.dumps(content))
    return numbers


def test_panoptic_segments_are_things_and_the_class_of_each_pixel(tmp_path: Path) -> None:
    numbers = panoptic(tmp_path)
    layout = sniff(tmp_path, task="panoptic")
    assert layout.truth == Truth("panoptic", ("cell", "sky", "car"), things=("cell", "car"))
    assert layout.truths == {"annotations/panoptic_train/4.png"}
    assert Truth.from_dict(layout.truth.to_dict()) == layout.truth
    (entry,) = layout.found
    row = Row(entry.id, entry.path, target=entry.target)
    targets = PanopticTargets(layout.truth)
    found = targets.read(row, tmp_path)
    wanted = np.select([numbers == 0, np.isin(numbers, (5, 300)), numbers == 70_000], [255, 0, 1], 2)
    np.testing.assert_array_equal(found.areas, wanted)
    assert found.things.boxes.kinds.tolist() == [0, 0, 1, 1]  # numbered among things
    assert found.things.boxes.crowd.tolist() == [False, False, False, True]
    same(found.things, [numbers == number for number in (5, 300, 1, 2)])
    (things,) = targets.rows_of_things([row])
    assert [one["class"] for one in json.loads(things.target)] == ["cell", "cell", "car", "car"]
    others = sniff(tmp_path, LayoutOptions(things="cell"), task="panoptic")
    assert (others.truth.things, len(others.truth.names)) == (("cell",), 3)


def test_a_check_of_panoptic_segments(tmp_path: Path) -> None:
    panoptic(tmp_path)
    prepared: Prepared = prepare(tmp_path, task="panoptic")
    said = {finding.kind: finding.text for finding in prepared.report.findings}
    assert said["class areas"].startswith("Of 2,501 pixels: sky")
    assert "2 cell in 1 image, 1 car in 1 image (and 1 crowd" in said["object classes"]
    assert [row.state for row in prepared.manifest.rows(state=None)] == ["kept"]


def test_segments_that_no_file_lists_keep_the_image_out(tmp_path: Path) -> None:
    panoptic(tmp_path)
    file = tmp_path / "annotations/panoptic_train/4.png"
    with Image.open(file) as png:
        colours = np.array(png)
    colours[0, 0] = (77, 0, 0)
    put(file, encode(colours))
    assert "does not list (77)" in sniff(tmp_path, task="panoptic").found[0].trouble
    file.unlink()
    assert "has no PNG of its segments" in sniff(tmp_path, task="panoptic").found[0].trouble


# Turned images


@pytest.mark.parametrize(
    ("orientation", "state", "kind"), [(6, "quarantined", "box turn"), (3, "kept", "mask turn kept")]
)
def test_a_label_map_of_a_turned_image_is_told(
    tmp_path: Path, orientation: int, state: str, kind: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for i in range(2):
        Path(tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(scene(i, SIZE)).save(tmp_path / f"images/{i}.jpg", exif=exif if i else Image.Exif())
        put(tmp_path / f"masks/{i}.png", encode(label_map(shapes())))
    prepared = prepare(tmp_path, task="instances")
    assert {row.id: row.state for row in prepared.manifest.rows(state=None)}["images/1.jpg"] == state
    assert kind in {finding.kind for finding in prepared.report.findings}
