"""Boxes of every kind of source, made small: read to the exact corners, with what is left aside said."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import encode, put, scene

from vitrail.core.errors import DataError
from vitrail.data.layouts import Layout, sniff
from vitrail.data.layouts.mask_files import to_runs
from vitrail.data.manifest import Row
from vitrail.data.options import LayoutOptions
from vitrail.tasks.detect.targets import DetectTargets

SIZE = (40, 60)
Found = list[tuple[str, list[float]]]


def pictures(root: Path, names: list[str], size: tuple[int, int] = SIZE) -> None:
    for i, name in enumerate(names):
        put(root / name, encode(scene(i, size), "PNG" if name.endswith("png") else "JPEG"))


def look(root: Path, **how: Any) -> Layout:
    layout = sniff(root, **how)
    assert layout.truth.kind == "boxes"
    assert layout.question is None
    return layout


def boxes(layout: Layout) -> dict[str, Found]:
    """Return the class and the corners of every box by its image, as the task reads them."""
    targets, names = DetectTargets(layout.truth), layout.truth.names
    found = {}
    for entry in layout.entries():
        if not entry.trouble:
            read = targets.read(Row(entry.id, entry.path, target=entry.target), layout.root)
            pairs = zip(read.kinds.tolist(), read.xyxy.tolist(), strict=True)
            found[entry.id] = [(names[kind], corners) for kind, corners in pairs]
    return found


def splits(layout: Layout) -> dict[str, str]:
    return {entry.id: entry.split for entry in layout.entries()}


def troubles(layout: Layout) -> dict[str, str]:
    return {entry.id: entry.trouble for entry in layout.entries() if entry.trouble}


# COCO


def coco(categories: dict[int, str], annotations: list[dict[str, Any]], **size: int) -> str:
    images = [{"id": 10 * i, "file_name": f"{i}.png", **size} for i in range(3)]
    named = [{"id": number, "name": name} for number, name in categories.items()]
    return json.dumps({"images": images, "categories": named, "annotations": annotations})


@pytest.mark.parametrize("ids", [(1, 2, 3), (0, 1, 2), (3, 17, 42)])
def test_category_ids_of_coco_come_from_anywhere(ids: tuple[int, ...], tmp_path: Path) -> None:
    """rf-detr 961, 913, 51: class ids that are one off."""
    pictures(tmp_path, ["0.png", "1.png", "2.png"])
    categories = dict(zip(ids, ("zebra", "ant", "never seen"), strict=True))
    annotations = [
        {"image_id": 0, "category_id": ids[1], "bbox": [1, 2, 10, 20]},
        {"image_id": 10, "category_id": ids[0], "bbox": [0, 0, 60, 40], "iscrowd": 1},
    ]
    put(tmp_path / "boxes.json", coco(categories, annotations))
    layout = look(tmp_path)
    assert layout.truth.names == ("zebra", "ant", "never seen")  # by their ids, those without boxes too
    assert boxes(layout) == {
        "0.png": [("ant", [1, 2, 11, 22])],
        "1.png": [("zebra", [0, 0, 60, 40])],
        "2.png": [],
    }
    read = DetectTargets(layout.truth).read(Row("1.png", "1.png", target=layout.found[1].target), tmp_path)
    assert read.crowd.tolist() == [True]


def test_outlines_of_coco_with_parts_and_runs_have_their_extent(tmp_path: Path) -> None:
    pictures(tmp_path, ["0.png", "1.png", "2.png"])
    there = np.zeros(SIZE, bool)
    there[5:9, 7:20], there[30:32, 50] = True, True
    annotations = [
        {"image_id": 0, "category_id": 1, "segmentation": [[1, 2, 8, 2, 8, 9], [20, 30, 25.5, 30, 25.5, 33]]},
        {"image_id": 10, "category_id": 1, "bbox": [], "segmentation": to_runs(there), "iscrowd": 0},
        {"image_id": 20, "category_id": 1, "bbox": [3, 4, 5, 6], "segmentation": [[3, 4, 8, 4, 8, 10]]},
    ]
    content = json.loads(coco({1: "thing"}, annotations))
    content["annotations"].insert(0, {"image_id": 20, "category_id": 1, "bbox": [1, 1, 2, 2]})
    put(tmp_path / "boxes.json", json.dumps(content))
    layout = look(tmp_path)
    assert boxes(layout) == {
        "0.png": [("thing", [1, 2, 25.5, 33])],
        "1.png": [("thing", [7, 5, 51, 32])],
        "2.png": [("thing", [1, 1, 3, 3]), ("thing", [3, 4, 8, 10])],
    }
    assert json.loads(layout.found[0].target)[0]["polygons"][1] == [20, 30, 25.5, 30, 25.5, 33]


def test_two_files_of_coco_about_the_same_objects_count_them_once(tmp_path: Path) -> None:
    pictures(tmp_path, ["0.png", "1.png", "2.png"])
    annotations = [{"image_id": 0, "category_id": 1, "bbox": [1, 2, 10, 20]}]
    put(tmp_path / "instances.json", coco({1: "person"}, annotations))
    put(tmp_path / "keypoints.json", coco({1: "person"}, [{**annotations[0], "keypoints": [1, 2, 2]}]))
    layout = look(tmp_path)
    assert boxes(layout)["0.png"] == [("person", [1, 2, 11, 22])]
    assert "1 box in several files: taken once." in layout.notes


def test_roboflows_coco_has_its_splits_and_its_group_of_classes_is_no_class(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        pictures(tmp_path, [f"{split}/a_{split}.jpg", f"{split}/empty_{split}.jpg"])
        content = {
            "images": [
                {"id": i, "file_name": f"{name}_{split}.jpg", "height": 40, "width": 60}
                for i, name in enumerate(("a", "empty"))
            ],
            "categories": [
                {"id": 0, "name": "cells-x7", "supercategory": "none"},
                {"id": 1, "name": "red", "supercategory": "cells-x7"},
                {"id": 2, "name": "white", "supercategory": "cells-x7"},
            ],
            "annotations": [{"id": 0, "image_id": 0, "category_id": 2, "bbox": [1, 2, 3.5, 4], "iscrowd": 0}],
        }
        put(tmp_path / split / "_annotations.coco.json", json.dumps(content))
    layout = look(tmp_path)
    assert layout.truth.names == ("red", "white")
    assert Counter(splits(layout).values()) == {"train": 2, "val": 2, "test": 2}
    assert boxes(layout)["train/a_train.jpg"] == [("white", [1, 2, 4.5, 6])]
    assert boxes(layout)["valid/empty_valid.jpg"] == []
    assert any("cells-x7" in note and "no class" in note for note in layout.notes)


# YOLO

LINE = "1 0.5 0.5 0.5 0.5\n"
BOX = [("dog", [15.0, 10.0, 45.0, 30.0])]
YAMLS = {
    "folders": "path: ../datasets/pets\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n",
    "absolute": "path: /home/me/datasets/pets\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n",
    "above": "train: ../images/train\nval: ../images/val\nnc: 2\nnames: [cat, dog]\n",
    "lists": "train: train.txt\nval: [val.txt]\nnames: [cat, dog]\n",
    "several": "train: [images/train/a, images/train/b]\nval: images/val\nnames: {1: dog, 0: cat}\n",
}


@pytest.mark.parametrize("name", YAMLS)
def test_splits_of_yolo_as_data_yaml_states_them(name: str, tmp_path: Path) -> None:
    files = [f"images/{place}/{i}.jpg" for i, place in enumerate(("train/a", "train/b", "val", "extra"))]
    pictures(tmp_path, files)
    put(tmp_path / "data.yaml", YAMLS[name])
    put(tmp_path / "train.txt", "./images/train/a/0.jpg\n/far/away/images/train/b/1.jpg\n")
    put(tmp_path / "val.txt", "images/val/2.jpg\n")
    for file in files:
        put(tmp_path / file.replace("images", "labels").replace("jpg", "txt"), LINE)
    layout = look(tmp_path)
    assert layout.truth.names == ("cat", "dog")
    assert splits(layout) == {files[0]: "train", files[1]: "train", files[2]: "val"}
    assert boxes(layout)[files[2]] == BOX
    assert any("1 image outside the folders of data.yaml left aside" in note for note in layout.notes)


def test_missing_and_empty_files_of_yolo_are_background(tmp_path: Path) -> None:
    pictures(tmp_path, [f"train/images/{i}.jpg" for i in range(3)])
    put(tmp_path / "data.yaml", "train: ../train/images\nval: ../valid/images\nnames: [cat, dog]\n")
    put(tmp_path / "train/labels/0.txt", LINE)
    put(tmp_path / "train/labels/1.txt", "\n")
    layout = look(tmp_path)
    assert boxes(layout) == {
        "train/images/0.jpg": BOX,
        "train/images/1.jpg": [],
        "train/images/2.jpg": [],
    }
    assert any("1 image without a text file taken as background" in note for note in layout.notes)
    assert any("../valid/images" in note and "no image is there" in note for note in layout.notes)


def test_wrong_lines_of_yolo_are_named_with_their_file(tmp_path: Path) -> None:
    wrong = {
        "range": "2 0.5 0.5 0.5 0.5",
        "negative": "-1 0.5 0.5 0.5 0.5",
        "pixels": "0 30 20 10 10",
        "short": "0 0.5 0.5 0.5",
        "words": "0 0.5 0.5 cat 0.5",
    }
    pictures(tmp_path, [f"images/{name}.jpg" for name in (*wrong, "right")])
    put(tmp_path / "data.yaml", "names: [cat, dog]\n")
    for name, line in {**wrong, "right": LINE}.items():
        put(tmp_path / f"labels/{name}.txt", f"{LINE}{line}\n")
    layout = look(tmp_path)
    found = {Path(name).stem: text for name, text in troubles(layout).items()}
    assert found.keys() == wrong.keys()
    assert all(f"in line 2 of labels/{name}.txt" in text for name, text in found.items())
    assert "the class number 2, but data.yaml names 2 classes (0 to 1)" in found["range"]
    assert "shares of the image" in found["pixels"]


def test_yolo_with_polygons_scores_and_a_list_of_classes(tmp_path: Path) -> None:
    pictures(tmp_path, ["a.jpg", "b.jpg"])
    put(tmp_path / "classes.txt", "cat\ndog\n")
    put(tmp_path / "a.txt", "0 0 0 0.5 0 0.5 0.25 0 0.25\n" + LINE.strip() + " 0.87\n")
    put(tmp_path / "b.txt", "")
    layout = look(tmp_path)
    assert boxes(layout) == {"a.jpg": [("cat", [0, 0, 30, 10]), *BOX], "b.jpg": []}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_shares_of_yolo_are_of_the_image_as_it_is_shown(orientation: int, tmp_path: Path) -> None:
    """Every EXIF orientation: pixels of the file are turned, and boxes are those of the upright image."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = orientation
    put(tmp_path / "images/0.jpg", encode(Image.fromarray(scene(1, SIZE)), "JPEG", exif=exif))
    put(tmp_path / "labels/0.txt", LINE)
    put(tmp_path / "data.yaml", "names: [cat, dog]\n")
    (found,) = boxes(look(tmp_path)).values()
    height, width = SIZE if orientation < 5 else SIZE[::-1]
    assert found == [("dog", [width / 4, height / 4, 3 * width / 4, 3 * height / 4])]


# Pascal VOC


def voc(*objects: str, size: str = "", name: str = "") -> str:
    return f"<annotation><filename>{name}</filename>{size}{''.join(objects)}</annotation>"


def thing(name: str, corners: tuple[float, ...], more: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    inside = "".join(f"<{side}>{n}</{side}>" for side, n in sides)
    return f"<object><name>{name}</name>{more}<bndbox>{inside}</bndbox></object>"


def test_voc_with_background_difficult_objects_and_lists(tmp_path: Path) -> None:
    pictures(tmp_path, [f"VOC/JPEGImages/{i}.jpg" for i in range(5)])
    put(tmp_path / "VOC/Annotations/0.xml", voc())  # the first one is background
    put(tmp_path / "VOC/Annotations/1.xml", voc(thing("cat", (1, 1, 20, 30), "<difficult>1</difficult>")))
    put(tmp_path / "VOC/Annotations/2.xml", voc(thing("dog", (11, 21, 11, 21)), thing("cat", (2, 3, 4.5, 9))))
    put(tmp_path / "VOC/Annotations/9.xml", voc(thing("cat", (1, 1, 20, 30))))
    put(tmp_path / "VOC/ImageSets/Main/train.txt", "0\n1\n")
    put(tmp_path / "VOC/ImageSets/Main/val.txt", "2 1\n")
    layout = look(tmp_path)
    assert boxes(layout) == {
        "VOC/JPEGImages/0.jpg": [],
        "VOC/JPEGImages/1.jpg": [("cat", [0, 0, 20, 30])],
        "VOC/JPEGImages/2.jpg": [("cat", [1, 2, 4.5, 9])],  # the other one has no size
    }
    assert list(splits(layout).values()) == ["train", "train", "val"]
    assert "1 XML file without an image left aside: VOC/Annotations/9.xml." in layout.notes
    assert any("2 images without annotations left aside" in note for note in layout.notes)
    put(tmp_path / "VOC/Annotations/3.xml", "<annotation><object><name>cat</name></object></annotation>")
    with pytest.raises(DataError, match="without xmin"):
        sniff(tmp_path, layout="boxes")


def test_voc_files_beside_their_images_in_split_folders(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        pictures(tmp_path, [f"{split}/same.jpg"])
        width = 20 if split == "train" else 30
        put(tmp_path / split / "same.xml", voc(thing("cat", (1, 1, width, 30))))
    layout = look(tmp_path)
    assert splits(layout) == {"train/same.jpg": "train", "valid/same.jpg": "val"}
    assert boxes(layout)["valid/same.jpg"] == [("cat", [0, 0, 30, 30])]


def test_real_blood_cells(shared: Callable[[str], Path]) -> None:
    layout = look(shared("data/bccd.zip"))
    assert layout.truth.names == ("Platelets", "RBC", "WBC")
    assert Counter(splits(layout).values()) == {"train": 205, "val": 87}
    assert sum(len(json.loads(entry.target)) for entry in layout.found) == 3943
    assert sum(len(found) for found in boxes(layout).values()) == 3941  # two have no size


def test_real_trees_in_xml_beside_tables(shared: Callable[[str], Path]) -> None:
    layout = look(shared("data/trees.zip"))
    assert sorted(map(len, boxes(layout).values())) == [37, 61, 279]
    assert any("OSBS_029.csv" in note for note in layout.notes)


# Tables

ROW = "0.jpg,5,6,20,30.5,dog\n"
READ = [("dog", [5.0, 6.0, 20.0, 30.5])]
TABLES = {
    "deepforest": ("image_path,xmin,ymin,xmax,ymax,label\n", ROW, "1.jpg,,,,,\n"),
    "roboflow": ("filename,width,height,class,xmin,ymin,xmax,ymax\n", "0.jpg,60,40,dog,5,6,20,30.5\n", ""),
    "retinanet": ("", ROW, "1.jpg,,,,,\n"),
    "torchvision": ("image;x1;y1;x2;y2;category\n", ROW.replace(",", ";"), "1.jpg;;;;;\n"),
    "sides": ("path,x,y,w,h,label\n", "0.jpg,5,6,15,24.5,dog\n", "1.jpg,,,,,\n"),
    "kaggle": ("image_id,width,height,bbox,label\n", '0,60,40,"[5, 6, 15, 24.5]",dog\n', "1,60,40,,\n"),
    "shares": (
        "ImageID,XMin,XMax,YMin,YMax,LabelName\n",
        "0,0.0833333333,0.3333333333,0.15,0.7625,dog\n",
        "",
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_with_a_box_in_each_row(name: str, tmp_path: Path) -> None:
    header, row, empty = TABLES[name]
    pictures(tmp_path, ["0.jpg", "1.jpg", "2.jpg"])
    put(tmp_path / "boxes.csv", f"{header}{row}{empty}")
    for layout in (
        look(tmp_path),
        look(tmp_path / "boxes.csv"),
        sniff(tmp_path, LayoutOptions(labels="boxes.csv")),
    ):
        found = boxes(layout)
        assert [one[0] for one in found["0.jpg"]] == ["dog"]
        np.testing.assert_allclose(found["0.jpg"][0][1], READ[0][1], atol=1e-3)
        assert found.get("1.jpg") == ([] if empty else None)
    assert any("without annotations left aside: " in note for note in look(tmp_path).notes)


def test_a_table_in_each_split_folder_of_roboflow(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        pictures(tmp_path, [f"{split}/0.jpg"])
        put(tmp_path / split / "_annotations.csv", "".join(TABLES["roboflow"][:2]))
    layout = look(tmp_path)
    assert splits(layout) == {"train/0.jpg": "train", "valid/0.jpg": "val"}
    assert all(found == READ for found in boxes(layout).values())


def test_what_is_wrong_in_a_table_is_named(tmp_path: Path) -> None:
    pictures(tmp_path, ["0.jpg", "1.jpg", "2.jpg"])
    lines = [
        "image_path,xmin,ymin,xmax,ymax",
        "0.jpg,1,2,3,4",
        "0.jpg,9,9,12,12",
        "1.jpg,1,2,x,4",
        "gone.jpg,1,2,3,4",
    ]
    put(tmp_path / "boxes.csv", "\n".join(lines) + "\n")
    layout = look(tmp_path)
    assert boxes(layout) == {"0.jpg": [("object", [1, 2, 3, 4]), ("object", [9, 9, 12, 12])]}
    assert "not four numbers (1, 2, x, 4)" in troubles(layout)["1.jpg"]
    assert any("1 image of boxes.csv not here: gone.jpg" in note for note in layout.notes)
    assert any("no column of classes" in note for note in layout.notes)


def test_images_that_only_a_table_describes_are_taken_from_it(tmp_path: Path) -> None:
    pictures(tmp_path, ["0.jpg", "1.jpg"])
    put(tmp_path / "0.xml", voc(thing("cat", (1, 1, 20, 30))))
    put(
        tmp_path / "boxes.csv",
        "image_path,xmin,ymin,xmax,ymax,label\n0.jpg,0,0,9,9,ox\n1.jpg,5,6,20,30.5,dog\n",
    )
    layout = look(tmp_path)
    assert boxes(layout) == {"0.jpg": [("cat", [0, 0, 20, 30])], "1.jpg": READ}
    assert any("1 image only in boxes.csv taken from there" in note for note in layout.notes)


# CVAT


def test_cvat_with_background_rotation_and_its_order_of_classes(tmp_path: Path) -> None:
    pictures(tmp_path, ["a.png", "b.png"])
    labels = "<meta><task><labels><label><name>dog</name></label><label><name>cat</name></label></labels></task></meta>"
    shapes = (
        '<box label="cat" xtl="10" ytl="20" xbr="30" ybr="24" rotation="90"/>'
        '<polygon label="dog" points="0,0;4,0;4,4"/><polyline label="dog" points="0,0;4,0"/>'
    )
    images = f'<image id="0" name="a.png" width="60" height="40">{shapes}</image><image id="1" name="b.png"/>'
    put(tmp_path / "annotations.xml", f"<annotations>{labels}{images}</annotations>")
    layout = look(tmp_path)
    assert layout.truth.names == ("dog", "cat")
    found = boxes(layout)
    assert found["b.png"] == []
    np.testing.assert_allclose(found["a.png"][0][1], [18, 12, 22, 32])
    assert "1 polyline of CVAT left aside: no boxes." in layout.notes
