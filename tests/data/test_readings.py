"""Where labels come from: public data sets as they are downloaded, made small, and sources with two readings."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from pictures import encode, folders, put, scene
from PIL import Image

from vitrail import plots
from vitrail.cli.main import run
from vitrail.core.errors import DataError, SettingError, UndecidedError, UnknownNameError
from vitrail.data.labels import split_labels, splits_of
from vitrail.data.layouts import Layout, sniff
from vitrail.data.options import LayoutOptions
from vitrail.data.prepare import prepare
from vitrail.data.walk_files import is_image_at
from vitrail.infer.inputs import expand

PICTURE = encode(scene(0, (9, 8)))
MASK = encode(np.array([[0, 255]], np.uint8).repeat(9, 0).repeat(4, 1))
ABC = ("circle", "square", "triangle")


def pictures(root: Path, names: list[str]) -> None:
    for name in names:
        put(root / name, PICTURE)


def counts(layout: Layout) -> dict[str, int]:
    labels = [split_labels(entry.target) for entry in layout.entries() if not entry.trouble]
    return dict(Counter(one for cell in labels for one in cell))


def splits(layout: Layout) -> dict[str, int]:
    return dict(Counter(entry.split for entry in layout.entries() if not entry.trouble))


def said(layout: Layout) -> str:
    return " ".join(layout.notes)


def rows(head: str, lines: list[str]) -> str:
    return "\n".join([head, *lines]) + "\n"


# Data sets as they are downloaded: builder → classes and counts, splits


def ham10000(root: Path) -> None:
    pictures(root, [f"HAM10000_images_part_{1 + i // 6}/ISIC_{i:07d}.jpg" for i in range(12)])
    head = "lesion_id,image_id,dx,dx_type,age,sex,localization"
    lines = [
        f"HAM_{i // 2},ISIC_{i:07d},{('nv', 'mel', 'bkl')[i // 2 % 3]},histo,{40 + i}.0,male,back"
        for i in range(12)
    ]
    put(root / "HAM10000_metadata.csv", rows(head, lines))


def chest_xray14(root: Path) -> None:
    pictures(root, [f"images_{1 + i // 4:03d}/images/{i:08d}_000.png" for i in range(12)])
    labels = ("No Finding", "Cardiomegaly", "Cardiomegaly|Effusion")
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    lines = [f"{i:08d}_000.png,{labels[i % 3]},0,{i // 2},{50 + i},M,PA" for i in range(12)]
    put(root / "Data_Entry_2017.csv", rows(head, lines))
    put(
        root / "BBox_List_2017.csv",
        rows("Image Index,Finding Label,Bbox [x", ["00000001_000.png,Cardiomegaly,3"]),
    )
    put(root / "train_val_list.txt", "".join(f"{i:08d}_000.png\n" for i in range(8)))
    put(root / "test_list.txt", "".join(f"{i:08d}_000.png\n" for i in range(8, 12)))


def aptos(root: Path) -> None:
    pictures(
        root,
        [f"train_images/{i:012x}.png" for i in range(12)] + [f"test_images/f{i:011x}.png" for i in range(3)],
    )
    put(root / "train.csv", rows("id_code,diagnosis", [f"{i:012x},{i % 3}" for i in range(12)]))
    put(root / "test.csv", rows("id_code", [f"f{i:011x}" for i in range(3)]))
    put(root / "sample_submission.csv", rows("id_code,diagnosis", [f"f{i:011x},0" for i in range(3)]))


def retinopathy(root: Path) -> None:
    pictures(root, [f"train/{i}_{side}.jpeg" for i in range(6) for side in ("left", "right")])
    lines = [f"{i}_{side},{i % 3}" for i in range(6) for side in ("left", "right")]
    put(root / "trainLabels.csv", rows("image,level", lines))


def intel(root: Path) -> None:
    for split, many in (("train", 4), ("test", 2)):
        pictures(root, [f"seg_{split}/seg_{split}/{name}/{i}.jpg" for name in ABC for i in range(many)])
    pictures(root, [f"seg_pred/seg_pred/{i}.jpg" for i in range(3)])


def plant_disease(root: Path) -> None:
    top = "New Plant Diseases Dataset(Augmented)/New Plant Diseases Dataset(Augmented)"
    for split, many in (("train", 4), ("valid", 2)):
        pictures(root, [f"{top}/{split}/Apple___{name}/{i}.JPG" for name in ABC for i in range(many)])
    pictures(root, [f"test/test/AppleScab{i}.JPG" for i in range(3)])


def plant_pathology(root: Path) -> None:
    pictures(root, [f"images/Train_{i}.jpg" for i in range(9)] + [f"images/Test_{i}.jpg" for i in range(4)])
    marks = ("1,0,0", "0,1,0", "0,0,1")
    put(
        root / "train.csv",
        rows("image_id,circle,square,triangle", [f"Train_{i},{marks[i % 3]}" for i in range(9)]),
    )
    put(root / "test.csv", rows("image_id", [f"Test_{i}" for i in range(4)]))


def cats_and_dogs(root: Path) -> None:
    for split, many in (("training_set", 4), ("test_set", 2)):
        pictures(
            root,
            [f"{split}/{split}/{name}/{name[:3]}.{i}.jpg" for name in ("cats", "dogs") for i in range(many)],
        )
    put(root / "training_set/training_set/cats/_DS_Store", b"x")


def pet_images(root: Path) -> None:
    pictures(root, [f"PetImages/{name}/{i}.jpg" for name in ("Cat", "Dog") for i in range(4)])
    put(root / "PetImages/Cat/Thumbs.db", b"x")
    put(root / "readme[1].txt", "Please read.")


def dogs_vs_cats(root: Path) -> None:
    pictures(root, [f"train/{name}.{i}.jpg" for name in ("cat", "dog") for i in range(4)])
    pictures(root, [f"test1/{i}.jpg" for i in range(3)])


def pneumonia(root: Path) -> None:
    for top in ("chest_xray", "chest_xray/chest_xray"):
        for split, many in (("train", 3), ("val", 1), ("test", 2)):
            pictures(
                root,
                [
                    f"{top}/{split}/{name}/{top[-3:]}{i}.jpeg"
                    for name in ("NORMAL", "PNEUMONIA")
                    for i in range(many)
                ],
            )
    pictures(root, ["chest_xray/__MACOSX/chest_xray/._train"])


def gtsrb(root: Path) -> None:
    pictures(root, [f"Train/{i % 3}/{i:05d}.png" for i in range(9)] + [f"Test/{i:05d}.png" for i in range(3)])
    pictures(root, [f"Meta/{i}.png" for i in range(3)])
    head = "Width,Height,Roi.X1,ClassId,Path"
    put(
        root / "Train.csv", rows(head, [f"{27 + i},26,5,{i % 3},Train/{i % 3}/{i:05d}.png" for i in range(9)])
    )
    put(root / "Test.csv", rows(head, [f"{53 + i},54,6,{i % 3},Test/{i:05d}.png" for i in range(3)]))


def butterflies(root: Path) -> None:
    pictures(root, [f"train/Image_{i}.jpg" for i in range(9)] + [f"test/Image_{i}.jpg" for i in range(3)])
    put(root / "Training_set.csv", rows("filename,label", [f"Image_{i}.jpg,{ABC[i % 3]}" for i in range(9)]))
    put(root / "Testing_set.csv", rows("filename", [f"Image_{i}.jpg" for i in range(3)]))


def covid_radiography(root: Path) -> None:
    for name in ABC:
        pictures(root, [f"{name}/images/{name}-{i}.png" for i in range(3)])
        for i in range(3):
            put(root / f"{name}/masks/{name}-{i}.png", MASK)
        put(root / f"{name}.metadata.xlsx", b"x")


def roboflow(root: Path) -> None:
    for split, many in (("train", 6), ("valid", 3), ("test", 3)):
        pictures(root / split, [f"{split}{i}_jpg.rf.{i:032x}.jpg" for i in range(many)])
        marks = ("1, 0, 0", "0, 1, 0", "0, 0, 1")
        lines = [f"{split}{i}_jpg.rf.{i:032x}.jpg, {marks[i % 3]}" for i in range(many)]
        put(root / split / "_classes.csv", rows("filename, circle, square, triangle", lines))
    put(root / "README.dataset.txt", "made by Roboflow")


def fiftyone(root: Path) -> None:
    pictures(root, [f"data/{i:03d}.jpg" for i in range(9)])
    put(
        root / "labels.json",
        json.dumps({"classes": list(ABC), "labels": {f"{i:03d}": i % 3 for i in range(9)}}),
    )


def fiftyone_csv(root: Path) -> None:
    pictures(root, [f"data/{i:03d}.jpg" for i in range(9)])
    lines = [f"data/{i:03d}.jpg,,{ABC[i % 3]}" for i in range(9)]
    put(root / "labels.csv", rows("filepath,tags,ground_truth", lines))


def cvat(root: Path) -> None:
    pictures(root, [f"images/{i:03d}.jpg" for i in range(9)])
    images = "".join(
        f'<image id="{i}" name="{i:03d}.jpg" width="8"><tag label="{ABC[i % 3]}" source="manual"/></image>'
        for i in range(9)
    )
    put(root / "annotations.xml", f"<annotations><version>1.1</version>{images}</annotations>")


def label_studio_csv(root: Path) -> None:
    pictures(root, [f"upload/1/{i:08x}-pic{i}.jpg" for i in range(9)])
    lines = [
        f"/data/upload/1/{i:08x}-pic{i}.jpg,{i},{ABC[i % 3]},1,{i},2024-01-0{i + 1},{i}.5" for i in range(9)
    ]
    put(root / "project-1.csv", rows("image,id,choice,annotator,annotation_id,created_at,lead_time", lines))


def label_studio_json(root: Path) -> None:
    pictures(root, [f"pics/pic{i}.jpg" for i in range(9)])
    tasks = [
        {"id": i, "data": {"image": f"/data/upload/1/{i:08x}-pic{i}.jpg"},
         "annotations": [{"was_cancelled": False, "result": [{"type": "choices", "value": {"choices": [ABC[i % 3]]}}]}]}
        for i in range(9)
    ]  # fmt: skip
    put(root / "project-1.json", json.dumps(tasks))


def datumaro(root: Path) -> None:
    for split, many in (("train", 6), ("val", 3)):
        pictures(root, [f"images/{split}/{split}{i}.jpg" for i in range(many)])
        items = [
            {"id": f"{split}{i}", "annotations": [{"type": "label", "label_id": i % 3}],
             "image": {"path": f"{split}{i}.jpg"}}
            for i in range(many)
        ]  # fmt: skip
        labels = {"label": {"labels": [{"name": name} for name in ABC]}}
        put(
            root / f"annotations/{split}.json", json.dumps({"info": {}, "categories": labels, "items": items})
        )


def imagenet_list(root: Path) -> None:
    pictures(root, [f"val/ILSVRC2012_val_{i:08d}.JPEG" for i in range(9)])
    put(root / "val.txt", "".join(f"ILSVRC2012_val_{i:08d}.JPEG {i % 3}\n" for i in range(9)))
    put(root / "classes.txt", "\n".join(ABC) + "\n")


def inaturalist(root: Path) -> None:
    pictures(root, [f"train_val2019/Plants/{i % 3}/{i:03d}.jpg" for i in range(9)])
    content = {
        "images": [{"id": i, "file_name": f"train_val2019/Plants/{i % 3}/{i:03d}.jpg"} for i in range(9)],
        "annotations": [{"id": i, "image_id": i, "category_id": i % 3} for i in range(9)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(ABC)],
    }
    put(root / "train2019.json", json.dumps(content))


def imagefolder(root: Path) -> None:
    for split, many in (("train", 6), ("test", 3)):
        pictures(root / split, [f"{i:04d}.png" for i in range(many)])
        lines = [json.dumps({"file_name": f"{i:04d}.png", "label": ABC[i % 3]}) for i in range(many)]
        put(root / split / "metadata.jsonl", "\n".join(lines) + "\n")


def food101(root: Path) -> None:
    pictures(root, [f"images/{name}/{i}.jpg" for name in ABC for i in range(4)])
    put(root / "meta/classes.txt", "\n".join(ABC) + "\n")
    put(root / "meta/train.txt", "".join(f"{name}/{i}\n" for name in ABC for i in range(3)))
    put(root / "meta/test.txt", "".join(f"{name}/3\n" for name in ABC))


def in_classes(root: Path) -> None:
    pictures(
        root, [f"set/{name}/{split}/{i}.jpg" for name in ABC for split in ("train", "test") for i in range(3)]
    )


EACH = dict.fromkeys(ABC, 3)
TWELVE = {"circle": 4, "square": 4, "triangle": 4}
DOWNLOADS: list[tuple[Callable[[Path], None], dict[str, int], dict[str, int]]] = [
    (ham10000, {"nv": 4, "mel": 4, "bkl": 4}, {"": 12}),
    (chest_xray14, {"No Finding": 4, "Cardiomegaly": 8, "Effusion": 4}, {"train": 8, "test": 4}),
    (aptos, {"0": 4, "1": 4, "2": 4}, {"train": 12}),
    (retinopathy, {"0": 4, "1": 4, "2": 4}, {"": 12}),
    (intel, dict.fromkeys(ABC, 6), {"train": 12, "test": 6}),
    (plant_disease, {f"Apple___{name}": 6 for name in ABC}, {"train": 12, "val": 6}),
    (plant_pathology, EACH, {"train": 9}),
    (cats_and_dogs, {"cats": 6, "dogs": 6}, {"train": 8, "test": 4}),
    (pet_images, {"Cat": 4, "Dog": 4}, {"": 8}),
    (dogs_vs_cats, {"cat": 4, "dog": 4}, {"train": 8}),
    (pneumonia, {"NORMAL": 12, "PNEUMONIA": 12}, {"train": 12, "val": 4, "test": 8}),
    (gtsrb, {"0": 4, "1": 4, "2": 4}, {"train": 9, "test": 3}),
    (butterflies, EACH, {"train": 9}),
    (roboflow, TWELVE, {"train": 6, "val": 3, "test": 3}),
    (fiftyone, EACH, {"": 9}),
    (fiftyone_csv, EACH, {"": 9}),
    (cvat, EACH, {"": 9}),
    (label_studio_csv, EACH, {"": 9}),
    (label_studio_json, EACH, {"": 9}),
    (datumaro, EACH, {"train": 6, "val": 3}),
    (imagenet_list, EACH, {"val": 9}),
    (inaturalist, EACH, {"train": 9}),
    (imagefolder, EACH, {"train": 6, "test": 3}),
    (food101, TWELVE, {"train": 9, "test": 3}),
    (in_classes, dict.fromkeys(ABC, 6), {"train": 9, "test": 9}),
]


@pytest.mark.parametrize(
    ("build", "classes", "parts"), DOWNLOADS, ids=lambda one: getattr(one, "__name__", "")
)
def test_public_data_sets_as_they_are_downloaded(
    tmp_path: Path, build: Callable[[Path], None], classes: dict[str, int], parts: dict[str, int]
) -> None:
    build(tmp_path / "set")
    layout = sniff(tmp_path / "set")
    assert layout.question is None, layout.question
    assert (counts(layout), splits(layout)) == (classes, parts)


@pytest.mark.parametrize("build", [ham10000, intel, roboflow, fiftyone, cats_and_dogs, chest_xray14])
def test_an_archive_is_read_as_its_folder_is(tmp_path: Path, build: Callable[[Path], None]) -> None:
    build(tmp_path / "set")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
        for file in sorted((tmp_path / "set").rglob("*")):
            packed.write(file, file.relative_to(tmp_path))
    folder, archive = sniff(tmp_path / "set"), sniff(tmp_path / "set.zip")
    assert counts(folder) == counts(archive)
    assert splits(folder) == splits(archive)


# Two readings


def class_folders(root: Path, each: int = 4) -> Path:
    return folders(root, dict.fromkeys(ABC, each), (9, 8))


def table(root: Path, name: str, labels: dict[str, str]) -> Path:
    return put(root / name, rows("image,label", [f"{picture},{known}" for picture, known in labels.items()]))


def test_a_table_that_names_a_few_pictures_does_not_take_the_place_of_folders(tmp_path: Path) -> None:
    class_folders(tmp_path)
    table(tmp_path, "notes.csv", {f"{name}/0.png": "dark" if name == "circle" else "blurred" for name in ABC})
    layout = sniff(tmp_path)
    assert (layout.name, layout.question, counts(layout)) == ("folders", None, TWELVE)
    assert "notes.csv (3 images: blurred, dark) says something else of 3 of 3 images" in said(layout)
    assert "--labels notes.csv" in said(layout)
    assert counts(sniff(tmp_path, LayoutOptions(labels="notes.csv"))) == {"dark": 1, "blurred": 2}


def test_readings_that_contradict_each_other_are_a_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = class_folders(tmp_path / "my set")
    table(
        data,
        "labels.csv",
        {f"{name}/{i}.png": ABC[(k + (i > 1)) % 3] for k, name in enumerate(ABC) for i in range(4)},
    )
    layout = sniff(data)
    assert layout.question is not None
    assert "say different things of 6 of 12 images" in layout.question.text
    assert [way.option for way in layout.question.ways] == [("labels", "labels.csv"), ("layout", "folders")]
    with pytest.raises(UndecidedError, match=r"--labels labels\.csv.*--layout folders"):
        prepare(data)
    assert run(["train", str(data), "--epochs", "1"]) == 1
    told = capsys.readouterr().err
    assert f"vitrail train '{data}' --epochs 1 --labels labels.csv\n" in told
    assert f"vitrail train '{data}' --epochs 1 --layout folders\n" in told
    assert run(["check", str(data)]) == 0
    told = capsys.readouterr().out
    assert "Two readings contradict each other" in told
    assert (
        f"next    vitrail train '{data}' --labels labels.csv\n   or   vitrail train '{data}' --layout folders\n"
        in told
    )
    assert counts(sniff(data, layout="folders")) == TWELVE
    assert prepare(data, LayoutOptions(labels="labels.csv")).layout.tables == ("labels.csv",)


def test_a_question_is_asked_at_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitrail.cli import training_progress

    asked = UndecidedError("Which?", [("one", ("labels", "a.csv")), ("two", ("layout", "folders"))])
    for typed, chosen in (("2", ("layout", "folders")), ("", None), ("7", None)):
        monkeypatch.setattr("builtins.input", lambda typed=typed: typed)
        assert training_progress._chosen(asked) == chosen


def test_equal_labels_and_other_names_for_the_same_classes_are_no_question(tmp_path: Path) -> None:
    class_folders(tmp_path)
    table(tmp_path, "labels.csv", {f"{name}/{i}.png": str(k) for k, name in enumerate(ABC) for i in range(4)})
    layout = sniff(tmp_path)
    assert (layout.name, layout.question) == ("table", None)
    table(tmp_path, "labels.csv", {f"{name}/{i}.png": name.upper() for name in ABC for i in range(4)})
    assert sniff(tmp_path).question is None


def test_a_second_table_is_never_joined_in(tmp_path: Path) -> None:
    pictures(tmp_path, [f"images/{i}.png" for i in range(9)])
    table(tmp_path, "labels.csv", {f"{i}.png": ABC[i % 3] for i in range(9)})
    table(tmp_path, "weather.csv", {f"{i}.png": "sun" for i in range(3)})
    layout = sniff(tmp_path)
    assert (counts(layout), layout.question, layout.truth.kind) == (EACH, None, "class")
    assert "Not used: weather.csv (3 images: sun)" in said(layout)


def test_masks_beside_class_folders_are_a_question_and_never_pictures(tmp_path: Path) -> None:
    covid_radiography(tmp_path / "set")
    layout = sniff(tmp_path / "set")
    assert layout.question is not None
    assert {way.option for way in layout.question.ways} == {("layout", "masks"), ("layout", "folders")}
    chosen = sniff(tmp_path / "set", layout="folders")
    assert counts(chosen) == EACH
    assert "9 masks beside the images left aside" in said(chosen)


def test_a_few_boxes_do_not_take_the_place_of_class_folders(tmp_path: Path) -> None:
    class_folders(tmp_path, 8)
    content = {
        "images": [{"id": 1, "file_name": "circle/0.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
        "categories": [{"id": 1, "name": "spot"}],
    }
    put(tmp_path / "spots.json", json.dumps(content))
    layout = sniff(tmp_path)
    assert (layout.name, layout.question) == ("folders", None)


# Tables


@pytest.mark.parametrize(
    ("cell", "file"),
    [("IMG_1.PNG", "img_1.png"), ("7", "0007.png"), ("e\u0301.png", "\u00e9.png"), ("a 3.jpg", "a 03.png"),
     ("/data/upload/9/0a1b2c3d-x.png", "x.png"), ("s3://bucket/x.png", "x.png")],
)  # fmt: skip
def test_names_are_found_whatever_their_spelling(tmp_path: Path, cell: str, file: str) -> None:
    pictures(tmp_path, [f"p/{file}", "p/other.png"])
    table(tmp_path, "labels.csv", {cell: "a", "other.png": "b"})
    layout = sniff(tmp_path)
    assert {entry.path: entry.target for entry in layout.entries()} == {f"p/{file}": "a", "p/other.png": "b"}
    assert "1 name of labels.csv found only without regard to capitals" in said(layout) or cell[:1] in "/s"


@pytest.mark.parametrize("code", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16(tmp_path: Path, code: str) -> None:
    pictures(tmp_path, [f"batch_{'ab'[i % 2]}/{i:03d}.png" for i in range(9)])
    text = rows("image,label", [f"{i:03d}.png,{ABC[i % 3]}" for i in range(9)])
    put(tmp_path / "labels.csv", text.encode(code))
    layout = sniff(tmp_path)
    assert counts(layout) == EACH
    assert "read as UTF-16" in layout.why


def test_the_same_name_in_two_folders(tmp_path: Path) -> None:
    pictures(tmp_path, [f"{folder}/{i}.png" for folder in "ab" for i in range(6)])
    table(tmp_path, "labels.csv", {f"{i}.png": ABC[i % 3] for i in range(6)})
    with pytest.raises(
        DataError, match=r"0\.png lies in a and in b: write the folder, too \(a/0\.png\).*--layout folders"
    ):
        sniff(tmp_path)
    assert counts(sniff(tmp_path, layout="folders")) == {"a": 6, "b": 6}
    lines = [f"{folder},{i}.png,{ABC[i % 3]}" for folder in "ab" for i in range(6)]
    put(tmp_path / "labels.csv", rows("folder,file,label", lines))
    assert counts(sniff(tmp_path)) == TWELVE


def test_columns_that_are_not_clear_are_asked_for_by_name(tmp_path: Path) -> None:
    pictures(tmp_path, [f"part_{1 + i % 2}/{i}.png" for i in range(12)])
    lines = [f"{i}.png,{'xy'[i % 2]},{'uvw'[i % 3]}" for i in range(12)]
    put(tmp_path / "about.csv", rows("image,wing,beak", lines))
    with pytest.raises(
        DataError, match=r"'wing' or 'beak': name the column \(--labels about.csv:wing\).*--layout folders"
    ):
        sniff(tmp_path)
    assert counts(sniff(tmp_path, LayoutOptions(labels="about.csv:beak"))) == {"u": 4, "v": 4, "w": 4}
    assert counts(sniff(tmp_path / "about.csv", LayoutOptions(labels="wing"))) == {"x": 6, "y": 6}
    with pytest.raises(UnknownNameError, match="column for --labels"):
        sniff(tmp_path, LayoutOptions(labels="about.csv:leg"))
    with pytest.raises(UnknownNameError, match=r"about\.csv"):
        sniff(tmp_path, LayoutOptions(labels="abuot.csv"))


def test_parts_of_a_download_are_said_to_look_like_no_classes(tmp_path: Path) -> None:
    pictures(tmp_path, [f"images_part_{1 + i % 2}/{i}.png" for i in range(6)])
    assert "are called like parts of a download: are they classes?" in said(sniff(tmp_path))


def test_one_class_and_a_table_that_is_not_understood(tmp_path: Path) -> None:
    pictures(tmp_path, [f"train_images/{i}.png" for i in range(6)])
    put(
        tmp_path / "train.csv",
        rows("file,wing,beak", [f"{i}.png,{'xy'[i % 2]},{'uvw'[i % 3]}" for i in range(6)]),
    )
    with pytest.raises(
        DataError, match=r"train\.csv is not used: its labels could stand in 'wing' or 'beak'"
    ):
        sniff(tmp_path)


# Splits and groups


def test_words_of_splits() -> None:
    assert splits_of(["seg_train", "seg_test", "seg_pred"]) == {"seg_train": "train", "seg_test": "test"}
    assert splits_of(["train", "eval"]) == {"train": "train", "eval": "val"}
    assert splits_of(["train", "val", "eval"]) == {"train": "train", "val": "val", "eval": "test"}
    assert splits_of(["TrainSet", "test-images", "val2017"]) == {
        "TrainSet": "train", "test-images": "test", "val2017": "val",
    }  # fmt: skip
    assert splits_of(["bus", "train_station", "test_tube"]) == {}


def test_words_that_are_no_splits_are_said_with_the_option(tmp_path: Path) -> None:
    pictures(tmp_path, [f"i/{i}.png" for i in range(12)])
    put(
        tmp_path / "labels.csv",
        rows("image,label,split", [f"{i}.png,{ABC[i % 3]},{'AB'[i % 4 == 3]}" for i in range(12)]),
    )
    layout = sniff(tmp_path)
    assert splits(layout) == {"": 12}
    assert (
        "has the words A, B, which are no splits: not used. Say what they mean: --splits A=train,B=test"
        in said(layout)
    )
    assert splits(sniff(tmp_path, LayoutOptions(splits="A=train,B=test"))) == {"train": 9, "test": 3}
    with pytest.raises(SettingError, match="'tset' is no split"):
        sniff(tmp_path, LayoutOptions(splits="A=train,B=tset"))


def test_flags_are_splits(tmp_path: Path) -> None:
    pictures(tmp_path, [f"i/{i}.png" for i in range(12)])
    put(
        tmp_path / "l.csv",
        rows("image,label,is_valid", [f"{i}.png,{ABC[i % 3]},{i % 4 == 3}" for i in range(12)]),
    )
    assert splits(sniff(tmp_path)) == {"train": 9, "val": 3}
    put(
        tmp_path / "l.csv",
        rows("image,label,train", [f"{i}.png,{ABC[i % 3]},{int(i % 4 != 3)}" for i in range(12)]),
    )
    assert splits(sniff(tmp_path)) == {"train": 9, "test": 3}


def test_a_list_of_splits_beside_class_folders(tmp_path: Path) -> None:
    class_folders(tmp_path)
    lines = [f"{name}/{i}.png,{'test' if i == 3 else 'train'}" for name in ABC for i in range(4)]
    put(tmp_path / "split.csv", rows("file,split", lines))
    layout = sniff(tmp_path)
    assert (layout.name, splits(layout)) == ("folders", {"train": 9, "test": 3})
    assert "The split of 12 images stands in split.csv." in said(layout)
    assert splits(sniff(tmp_path, LayoutOptions(splits="none"))) == {"": 12}


def test_a_list_of_groups_beside_class_folders(tmp_path: Path) -> None:
    class_folders(tmp_path)
    put(
        tmp_path / "people.csv",
        rows("file,patient", [f"{name}/{i}.png,p{i % 2}" for name in ABC for i in range(4)]),
    )
    layout = sniff(tmp_path)
    assert (layout.name, {entry.group for entry in layout.entries()}) == ("folders", {"p0", "p1"})
    assert "The group of 12 images stands in people.csv." in said(layout)
    assert {entry.group for entry in sniff(tmp_path, LayoutOptions(groups="none")).entries()} == {""}


def test_split_folders_by_words_of_ones_own(tmp_path: Path) -> None:
    folders(tmp_path, {f"{part}/{name}": 2 for part in ("one", "two") for name in ABC}, (9, 8))
    assert splits(sniff(tmp_path, LayoutOptions(splits="one=train,two=test"))) == {"train": 6, "test": 6}


def test_places_are_groups_only_where_there_are_many(tmp_path: Path) -> None:
    for i in range(24):
        put(tmp_path / f"img/{i}.png", encode(scene(i, (9, 8))))
    put(
        tmp_path / "l.csv",
        rows("image,label,location", [f"{i}.png,{ABC[i % 3]},{['arm', 'leg'][i % 2]}" for i in range(24)]),
    )
    layout = sniff(tmp_path)
    assert {entry.group for entry in layout.entries()} == {""}
    assert "'location' has 2 values only and is not taken for groups that stay together" in said(layout)
    assert {e.group for e in sniff(tmp_path, LayoutOptions(groups="location")).entries()} == {"arm", "leg"}
    put(
        tmp_path / "l.csv", rows("image,label,patient", [f"{i}.png,{ABC[i % 3]},p{i % 2}" for i in range(24)])
    )
    from vitrail.data.split import can_be_trained

    tied = prepare(tmp_path)
    with pytest.raises(DataError, match=r"Groups tie the images together.*--groups none"):
        can_be_trained(tied.manifest, tied.targets.strata)
    free = prepare(tmp_path, LayoutOptions(groups="none"))
    can_be_trained(free.manifest, free.targets.strata)


# What is nobody's data


def test_hidden_and_system_folders_are_left_out_and_counted(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "set")
    hidden = [".git/objects/1.png", ".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/circle/._0.png", "@eaDir/0.png",
              "circle/._0.png", "$RECYCLE.BIN/1.png"]  # fmt: skip
    pictures(data, hidden)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
        for file in sorted(data.rglob("*")):
            packed.write(file, file.relative_to(tmp_path))
    told: list[str] = []
    for source in (data, tmp_path / "set.zip"):
        layout = sniff(source)
        assert counts(layout) == TWELVE
        assert "6 hidden or system files and folders left out" in said(layout)
        assert len(list(expand([str(source)], say=told.append))) == 12
    assert all("hidden or system files and folders left out" in line for line in told)
    assert len(told) == 2


def test_links_and_closed_folders_are_walked_alike(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "set")
    (data / "circle/again").symlink_to(data, target_is_directory=True)
    (data / "circle/gone.png").symlink_to(tmp_path / "nowhere.png")
    (data / "more").symlink_to(class_folders(tmp_path / "other") / "square", target_is_directory=True)
    layout = sniff(data)
    assert "1 link leading nowhere left out: circle/gone.png." in layout.notes
    told: list[str] = []
    sources = list(expand([str(data)], say=told.append))
    assert len(sources) == sum(counts(layout).values()) == 16
    assert told == [note for note in layout.notes if "link" in note]


def test_content_decides_what_is_a_picture(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "set")
    for i in range(4):
        (data / f"triangle/{i}.png").rename(data / f"triangle/{i}")
    put(data / "circle/jpeg.data", encode(scene(50), "JPEG"))
    put(data / "circle/readme", "no image")
    (data / "hexagon").mkdir()
    layout = sniff(data)
    assert counts(layout) == {**TWELVE, "circle": 5}
    assert "5 files without the suffix of an image taken as one: circle/jpeg.data, triangle/0" in said(layout)
    assert "1 file that is no image left aside: circle/readme." in layout.notes
    assert "No image in hexagon: no class comes of it." in layout.notes
    assert len(list(expand([str(data)]))) == 13
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
        for file in sorted(data.rglob("*")):
            packed.write(file, file.relative_to(data))
    assert counts(sniff(tmp_path / "set.zip")) == counts(layout)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000"])
def test_every_kind_is_known_by_its_first_bytes(tmp_path: Path, kind: str) -> None:
    put(tmp_path / "x", encode(scene(1), kind))
    assert is_image_at(tmp_path, "x")


def test_what_this_project_writes_is_never_data(tmp_path: Path) -> None:
    from vitrail.cli.answer_table import write_csv
    from vitrail.evaluate.label_errors import write_doubts

    data = class_folders(tmp_path / "set")
    manifest = prepare(data).manifest
    manifest.write(put(data / "runs/a/manifest.csv", ""))
    put(data / "runs/a/recipe.yaml", "schema: 1\n")
    put(data / "runs/a/history.jsonl", "{}\n")
    pictures(data, ["runs/a/shown/1.png"])
    for name in ("explained/0-gradcam.png", "explained/1-rollout.png"):
        (data / "explained").mkdir(exist_ok=True)
        plots.write_image(data / name, Image.new("RGB", (40, 20)))
    figure = Figure()
    figure.subplots().plot([1, 2])
    plots.write_image(data / "explained/curve.png", figure)
    manifest.write(data / "list.csv")
    write_doubts(data / "look.csv", [])
    write_csv(str(data / "answers.csv"), [], ("label", "probability"))
    layout = sniff(data)
    assert (layout.name, counts(layout)) == ("folders", TWELVE)
    for line in (
        "answers.csv left aside: answers of vitrail predict, no labels of yours.",
        "list.csv left aside: the manifest of a run, no labels of yours.",
        "look.csv left aside: the doubtful labels of a draft, no labels of yours.",
        "runs/a left aside: a run, no images of yours.",
        "3 figures that vitrail drew left aside: explained/0-gradcam.png, explained/1-rollout.png, "
        "explained/curve.png.",
    ):
        assert line in layout.notes
    assert len(list(expand([str(data)]))) == 13  # the images of a run are its own
    with pytest.raises(DataError, match="a is a run, no data set"):
        sniff(data / "runs/a")


def test_class_names_with_a_bar_or_without_a_letter(tmp_path: Path) -> None:
    data = folders(tmp_path / "set", {"cat|dog": 3, "bird": 3}, (9, 8))
    assert (counts(sniff(data)), sniff(data).truth.kind) == ({"cat|dog": 3, "bird": 3}, "class")
    pictures(data, [" /0.png"])
    with pytest.raises(DataError, match="a class folder whose name is blank"):
        sniff(data)


def test_training_says_where_labels_come_from_and_the_classes(tmp_path: Path) -> None:
    class_folders(tmp_path)
    assert prepare(tmp_path).opening()[0] == (
        "Class folders, because 3 folders hold the images: circle, square, triangle."
    )


# WebDataset


def shards(root: Path, samples: dict[str, bytes | str]) -> Path:
    import io
    import tarfile

    root.mkdir()
    with tarfile.open(root / "train-0000.tar", "w") as tar:
        for name, data in samples.items():
            raw = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return root


def test_keys_with_suffixes_of_two_parts(tmp_path: Path) -> None:
    samples: dict[str, bytes | str] = {}
    for i in range(9):
        samples[f"{i:04d}.input.png"] = PICTURE
        samples[f"{i:04d}.target.cls"] = str(i % 3)
    layout = sniff(shards(tmp_path / "set", samples))
    assert (layout.name, counts(layout), splits(layout)) == (
        "webdataset",
        {"0": 3, "1": 3, "2": 3},
        {"train": 9},
    )


def test_text_beside_json_and_masks_in_samples(tmp_path: Path) -> None:
    samples: dict[str, bytes | str] = {}
    for i in range(9):
        samples[f"{i:04d}.jpg"] = encode(scene(i), "JPEG")
        samples[f"{i:04d}.json"] = json.dumps({"label": ABC[i % 3]})
        samples[f"{i:04d}.txt"] = f"a caption of image {i}"
        samples[f"{i:04d}.mask.png"] = MASK
    layout = sniff(shards(tmp_path / "set", samples))
    assert counts(layout) == EACH
    assert "9 masks in the samples left aside: classes need none." in layout.notes
    for i in range(9):
        del samples[f"{i:04d}.json"], samples[f"{i:04d}.txt"]
    masks = sniff(shards(tmp_path / "masks", samples))
    assert (masks.truth.kind, len(masks.found)) == ("mask", 9)
    assert (masks.truth.names, masks.truth.values) == (("background", "foreground"), (0, 255))


def test_cvat_boxes(tmp_path: Path) -> None:
    pictures(tmp_path, ["a.png", "b.png"])
    shapes = '<box label="cat" xtl="1" ytl="2" xbr="5.5" ybr="7"/><polygon label="dog" points="0,0;4,0;4,4"/>'
    put(
        tmp_path / "annotations.xml",
        f'<annotations><image id="0" name="a.png">{shapes}</image></annotations>',
    )
    layout = sniff(tmp_path)
    assert layout.truth.names == ("cat", "dog")
    assert json.loads(layout.found[0].target)[0] == {"class": "cat", "box": [1, 2, 5.5, 7]}


def test_a_table_of_a_split_names_the_pictures_of_that_split(tmp_path: Path) -> None:
    for split in ("train", "test"):
        pictures(tmp_path, [f"{split}/{i}.png" for i in range(9)])
        table(tmp_path, f"{split}.csv", {f"{i}.png": ABC[i % 3] for i in range(9)})
    layout = sniff(tmp_path)
    assert (splits(layout), layout.notes) == ({"train": 9, "test": 9}, ())


def test_marks_of_minus_one_are_a_no(tmp_path: Path) -> None:
    pictures(tmp_path, [f"img/{i}.jpg" for i in range(9)])
    lines = [f"{i}.jpg,{1 if i % 2 else -1},{1 if i % 3 else -1}" for i in range(9)]
    put(tmp_path / "list_attr.csv", rows("image_id,Smiling,Young", lines))
    assert counts(sniff(tmp_path)) == {"Smiling": 4, "Young": 6}
