"""Truths of every kind: masks and boxes through the check, decisions on them, what a class set does without labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import encode, folders, put, scene

from vitrail.cli.main import run
from vitrail.core.errors import DataError, SettingError, UnknownNameError, VitrailError
from vitrail.data.augment import build
from vitrail.data.layouts import sniff
from vitrail.data.loader import ImageDataset, Order, Share, training
from vitrail.data.manifest import Manifest, Row
from vitrail.data.prepare import prepare
from vitrail.data.preprocess import Preprocess
from vitrail.data.targets import Targets
from vitrail.data.truth import Truth
from vitrail.tasks.classify.targets import ClassTargets

MASKS, BOXES = "truths:ToyMask", "truths:ToyBoxes"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


def mask(number: int, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    values = np.zeros(size, np.uint8)
    values[: 10 + number, 5:20] = 1
    values[-4:] = 255
    return values


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Twelve images with masks, and four whose masks cannot be used."""
    root = tmp_path / "cells"
    for i in range(16):
        put(root / "images" / f"{i}.png", encode(scene(i, (120, 160))))
    for i in range(12):
        put(root / "masks" / f"{i}_mask.png", encode(mask(i)))
    put(root / "masks/12.png", encode(mask(12, (60, 80))))
    put(root / "masks/13.png", encode(np.full((120, 160), 7, np.uint8)))
    put(root / "masks/14.png", b"no image")
    return root


# Masks


def test_masks_are_read_checked_and_written_down(cells: Path, tmp_path: Path) -> None:
    prepared = prepare(cells, task=MASKS)
    rows = {row.id: row for row in prepared.manifest.rows(state=None)}
    assert prepared.manifest.truth == Truth("mask", ("ground", "cell"), ((0, 0, 0), (255, 0, 0)), void=255)
    assert rows["images/3.png"].target == "masks/3_mask.png"
    assert {row.id for row in rows.values() if row.state == "quarantined"} == {
        f"images/{i}.png" for i in (12, 13, 14, 15)
    }
    assert rows["images/12.png"].reason == "a mask of 80 × 60 px"
    lines = prepared.report.lines()
    assert "1 image kept out, a mask of 80 × 60 px: images/12.png. Draw it again." in lines
    assert any("masks/14.png" in line and "images/14.png" in line for line in lines)
    assert prepared.manifest.counts(prepared.targets) == {"train": {"": 8}, "val": {"": 2}, "test": {"": 2}}
    np.testing.assert_array_equal(prepared.targets.read(rows["images/3.png"], cells), mask(3))
    path = prepared.manifest.write(tmp_path / "manifest.csv")
    again = Manifest.read(path, cells)
    assert (again.rows(state=None), again.truth) == (
        prepared.manifest.rows(state=None),
        prepared.manifest.truth,
    )


def test_masks_are_no_classes_and_have_a_task_of_their_own(cells: Path) -> None:
    assert type(prepare(cells).targets).__name__ == "SegmentTargets"
    with pytest.raises(DataError, match="not classes"):
        prepare(cells, task="classify")
    with pytest.raises(SettingError, match="wraps another task"):
        prepare(cells, task="distill")
    with pytest.raises(UnknownNameError, match="Did you mean 'classify'"):
        prepare(cells, task="clasify")
    with pytest.raises(SettingError, match="does not read truths"):
        prepare(cells, task="json:JSONDecoder")


def test_the_command_line_checks_a_set_for_an_own_task(
    cells: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = cells.parent / "check.html"
    assert run(["check", str(cells), "--task", MASKS, "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Images with masks, because the folders images and masks stand side by side")
    assert said.endswith(f"next    vitrail train {cells} --task {MASKS}\n")
    html = page.read_text(encoding="utf-8")
    assert "<b>masks/12.png</b>" in html
    assert "all images" in html
    assert run(["check", str(cells), "--task", MASKS, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["truth"], told["classes"], told["kept"]) == ("mask", ["ground", "cell"], 12)


def test_decisions_on_masks_can_be_taken_back(cells: Path) -> None:
    def state(name: str) -> str:
        rows = {row.id: row for row in prepare(cells, task=MASKS).manifest.rows(state=None)}
        return rows[name].state

    shutil.copy(cells / "images/0.png", cells / "images/same.png")
    put(cells / "masks/same.png", encode(mask(40)))  # the same image, another mask
    shutil.copy(cells / "images/1.png", cells / "images/twin.png")
    put(cells / "masks/twin.png", encode(mask(1)))  # an equal mask in another file contradicts nothing
    assert [state(f"images/{name}.png") for name in ("0", "same", "1", "twin")] == [
        "quarantined", "quarantined", "kept", "kept",
    ]  # fmt: skip
    assert run(["check", str(cells), "--task", MASKS]) == 0
    assert run(["check", str(cells), "--task", MASKS, "--undo", "1"]) == 0
    assert (state("images/0.png"), state("images/same.png")) == ("kept", "kept")
    assert run(["check", str(cells), "--task", MASKS, "--drop", "images/2.png"]) == 0
    assert state("images/2.png") == "dropped"
    assert run(["check", str(cells), "--task", MASKS, "--undo", "3"]) == 0
    assert state("images/2.png") == "kept"


def test_a_mask_is_replaced_by_a_decision_and_looked_at_again(cells: Path) -> None:
    from vitrail.data.decisions import History, history_path

    put(cells / "masks/new.png", encode(mask(2)))
    history = History().decide("relabel", ["images/15.png"], "masks/new.png")
    history = history.decide("relabel", ["images/3.png"], "masks/13.png").decide("keep", ["images/12.png"])
    history.write(history_path(cells))
    prepared = prepare(cells, task=MASKS)
    rows = {row.id: row for row in prepared.manifest.rows(state=None)}
    assert (rows["images/15.png"].state, rows["images/15.png"].target) == ("kept", "masks/new.png")
    assert (rows["images/3.png"].state, rows["images/3.png"].reason) == ("quarantined", "values of no class")
    assert rows["images/12.png"].state == "quarantined"  # nobody can decide that its mask fits
    assert set(prepared.report.of("mask values")) == {"images/13.png", "images/3.png"}
    assert prepared.report.of("no mask") == ()
    history.undo(1).undo(2).write(history_path(cells))
    rows = {row.id: row for row in prepare(cells, task=MASKS).manifest.rows(state=None)}
    assert (rows["images/15.png"].state, rows["images/3.png"].state) == ("quarantined", "kept")


def test_truths_are_read_by_the_loader_when_they_are_needed(cells: Path) -> None:
    prepared = prepare(cells, task=MASKS)
    rows = prepared.manifest.rows("train")
    steps = Preprocess.for_size((32, 32), 3)
    pictures = ImageDataset(rows, cells, steps, prepared.targets, build("none", channels=3, erasing=0.0))
    order = Order(len(rows), 4, seed=0)
    for workers in (0, 1):
        batch = next(training(pictures, order, Share(), 0, 1, workers))
        for name, target in zip(batch.ids, batch.targets, strict=True):
            number = int(name.removeprefix("images/").removesuffix(".png"))
            np.testing.assert_array_equal(target, mask(number))
    for row in rows:
        (cells / row.target).unlink()
    for workers in (0, 1):
        with pytest.raises(VitrailError, match="does not exist under"):
            next(training(pictures, order, Share(), 0, 1, workers))


# Boxes


def boxes(root: Path, number: int = 20) -> Path:
    images, annotations = [], []
    for i in range(number):
        put(root / f"{i}.png", encode(scene(i, (60, 80))))
        images.append({"id": i, "file_name": f"{i}.png"})
        for j in range(i % 3):
            one = {"image_id": i, "category_id": j, "bbox": [40 * j, 0, 30.25, 60]}
            annotations.append(
                one | ({"segmentation": [[1, 2, 3, 4, 5, 6]]} if j else {"iscrowd": int(i == 4)})
            )
    annotations.append({"image_id": 1, "category_id": 0, "bbox": [70, 0, 20, 10]})
    content = {"images": images, "categories": [{"id": 0, "name": "cell"}, {"id": 1, "name": "core"}]}
    put(root / "coco.json", json.dumps(content | {"annotations": annotations}))
    return root


def test_boxes_are_read_checked_and_written_down(tmp_path: Path) -> None:
    root = boxes(tmp_path / "set")
    prepared = prepare(root, task=BOXES)
    rows = {row.id: row for row in prepared.manifest.rows()}
    assert prepared.manifest.truth == Truth("boxes", ("cell", "core"))
    assert "20 images in 2 classes" in prepared.about()
    assert prepared.targets.read(rows["5.png"], root) == [
        {"class": "cell", "box": [0, 0, 30.25, 60]},
        {"class": "core", "box": [40, 0, 70.25, 60], "polygons": [[1, 2, 3, 4, 5, 6]]},
    ]
    assert prepared.targets.read(rows["4.png"], root) == [
        {"class": "cell", "box": [0, 0, 30.25, 60], "crowd": True}
    ]
    assert prepared.targets.read(rows["3.png"], root) == []  # an image without boxes is a truth, too
    assert prepared.report.of("outside") == ("1.png",)
    assert rows["1.png"].state == "kept"  # the task only said so
    counts = prepared.manifest.counts(prepared.targets)
    assert {split: sum(found.values()) > 0 for split, found in counts.items()} == dict.fromkeys(counts, True)
    assert sum(found["core"] for found in counts.values()) == 6
    assert prepared.targets.words(rows["5.png"]) == "1 cell, 1 core"
    (tmp_path / "run").mkdir()
    path = prepared.manifest.write(tmp_path / "run" / "manifest.csv")
    line = next(
        line for line in (tmp_path / "run/targets.jsonl").read_text().splitlines() if '"5.png"' in line
    )
    assert json.loads(line)["target"][0] == {"class": "cell", "box": [0, 0, 30.25, 60]}
    assert "core" not in path.read_text()
    again = Manifest.read(path, root)
    assert again.rows(state=None) == prepared.manifest.rows(state=None)
    assert again.truth == prepared.manifest.truth


def test_flags_and_outlines_of_yolo_and_voc_are_kept(tmp_path: Path) -> None:
    put(tmp_path / "yolo/images/train/0.png", encode(scene(0, (50, 100))))
    put(tmp_path / "yolo/images/train/1.png", encode(scene(1, (50, 100))))
    put(tmp_path / "yolo/labels/train/0.txt", "1 0.5 0.5 0.2 0.4\n0 0 0 0.5 0 0.5 0.5\n")
    put(tmp_path / "yolo/data.yaml", "names: [cat, dog]\n")
    found = {entry.id: entry for entry in sniff(tmp_path / "yolo").entries()}
    assert json.loads(found["images/train/0.png"].target) == [
        {"class": "dog", "box": [40, 15, 60, 35], "of": [50, 100]},
        {"class": "cat", "box": [0, 0, 50, 25], "polygons": [[0, 0, 50, 0, 50, 25]], "of": [50, 100]},
    ]
    assert (found["images/train/1.png"].target, found["images/train/1.png"].split) == ("[]", "train")
    put(tmp_path / "voc/JPEGImages/a.png", encode(scene(2)))
    corners = "<xmin>3</xmin><ymin>1</ymin><xmax>9</xmax><ymax>8</ymax>"
    thing = f"<object><name>cat</name><difficult>1</difficult><bndbox>{corners}</bndbox></object>"
    put(tmp_path / "voc/Annotations/a.xml", f"<annotation>{thing}</annotation>")
    put(tmp_path / "voc/ImageSets/Main/val.txt", "a\n")
    (entry,) = sniff(tmp_path / "voc").entries()
    assert json.loads(entry.target) == [{"class": "cat", "box": [2, 0, 9, 8], "difficult": True}]
    assert entry.split == "val"


def test_crops_leave_crowds_out(tmp_path: Path) -> None:
    layout = sniff(boxes(tmp_path / "set"), layout="crops")
    assert layout.truth == Truth("class")
    assert not [entry for entry in layout.entries() if entry.id.startswith("4.png!")]
    assert len(list(layout.entries())) == 19


# A class each, or several


def hot(root: Path, extra: str = "") -> Path:
    """A column for each class; image 4 has a 0 in both."""
    for i in range(24):
        put(root / f"{i}.png", encode(scene(i)))
    lines = [f"{i}.png,{int(i % 2 == 0 and i != 4)},{i % 2}\n" for i in range(23)]
    put(root / "t.csv", "image,cat,dog\n" + "".join(lines) + (extra or "23.png,0,1\n"))
    return root


def test_a_missing_label_does_not_make_a_set_one_of_several_labels(tmp_path: Path) -> None:
    prepared = prepare(hot(tmp_path / "set"))
    assert prepared.manifest.truth == Truth("class", ("cat", "dog"))
    (row,) = prepared.manifest.rows(state="quarantined")
    assert (row.id, row.reason) == ("4.png", "no label")
    assert prepared.report.of("no label") == ("4.png",)
    assert (
        "1 image kept out, no label: 4.png. If an image may have no label, use --task multilabel."
        in prepared.report.lines()
    )
    asked = prepare(tmp_path / "set", task="multilabel")
    assert asked.manifest.truth == Truth("classes", ("cat", "dog"))
    assert asked.manifest.states()["kept"] == 24


def test_some_picture_of_several_labels_makes_it_one(tmp_path: Path) -> None:
    prepared = prepare(hot(tmp_path / "set", "23.png,1,1\n"))
    assert prepared.manifest.truth.kind == "classes"
    assert prepared.manifest.states()["kept"] == 24  # the one without a label too
    single = prepare(tmp_path / "set", task="classify")
    assert single.report.of("several labels") == ("23.png",)
    assert single.manifest.states()["kept"] == 22


def test_a_label_that_people_give_brings_a_picture_back(tmp_path: Path) -> None:
    from vitrail.data.decisions import History, history_path

    root = hot(tmp_path / "set")
    History().decide("relabel", ["4.png"], "cat").decide("relabel", ["6.png"], "").write(history_path(root))
    prepared = prepare(root)
    rows = {row.id: row for row in prepared.manifest.rows(state=None)}
    assert (rows["4.png"].state, rows["4.png"].target, rows["4.png"].split != "") == ("kept", "cat", True)
    assert (rows["6.png"].state, rows["6.png"].reason) == ("quarantined", "no label")
    assert prepared.report.of("no label") == ("6.png",)


def test_a_class_folder_may_have_a_bar_in_its_name(tmp_path: Path) -> None:
    prepared = prepare(folders(tmp_path / "set", {"cat|dog": 12, "cow": 12}))
    assert prepared.manifest.truth == Truth("class", ("cat|dog", "cow"))
    targets = ClassTargets(prepared.manifest.truth)
    assert [targets.read(row, tmp_path) for row in prepared.manifest.rows()] == [0] * 12 + [1] * 12
    assert targets.words(prepared.manifest.rows()[0]) == "cat|dog"


def test_an_own_task_reads_a_number_as_it_stands(tmp_path: Path) -> None:
    for i in range(24):
        put(tmp_path / "set" / f"{i}.png", encode(scene(i)))
    put(tmp_path / "set/t.csv", "image,label\n" + "".join(f"{i}.png,{i / 7:.3f}\n" for i in range(24)))
    prepared = prepare(tmp_path / "set", task=f"{__name__}:Number")
    assert prepared.manifest.truth == Truth("class")
    assert sum(prepared.targets.read(row, tmp_path) for row in prepared.manifest.rows()) == pytest.approx(
        sum(range(24)) / 7, abs=0.02
    )
    assert {split: len(prepared.manifest.rows(split)) for split in ("train", "val", "test")} == {
        "train": 16, "val": 4, "test": 4,
    }  # fmt: skip


class Number(Targets[float]):
    """A measurement."""

    def read(self, row: Row, root: Path) -> float:
        return float(row.target)
