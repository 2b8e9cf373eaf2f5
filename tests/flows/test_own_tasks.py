"""Tasks of somebody else's go the whole way by the command line alone: not a line of the package knows them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import own_tasks
import pytest
from PIL import Image

from vitrail.infer.predictor import Predictor

IMAGES = 24


class Case(NamedTuple):
    """A task, its data, what its answers' table holds, and what may be asked of an answer."""

    task: str
    make: Callable[[Path], Path]
    main: str
    column: str
    of: str | None = None


def scene(number: int) -> tuple[Image.Image, np.ndarray, list[tuple[str, list[int]]]]:
    """Draw a dark and perhaps a light rectangle on grey: the image, its mask, the boxes."""
    draw = np.random.default_rng(number)
    pixels = draw.integers(110, 146, (37, 41, 3)).astype(np.uint8)
    mask = np.zeros((37, 41), np.uint8)
    boxes = []
    for name, colour in (("dark", 20), ("light", 235))[: 1 + number % 2]:
        top, left = (int(draw.integers(2, side - 16)) for side in mask.shape)
        tall, wide = (int(side) for side in draw.integers(8, 14, 2))
        pixels[top : top + tall, left : left + wide] = colour
        mask[top : top + tall, left : left + wide] = 1
        boxes.append((name, [left, top, left + wide, top + tall]))
    mask[:2] = own_tasks.VOID
    return Image.fromarray(pixels), mask, boxes


def values(folder: Path) -> Path:
    with (folder / "values.csv").open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["path", "label"])
        for number in range(IMAGES):
            image, mask, _ = scene(number)
            image.save(folder / f"{number}.png")
            table.writerow([f"{number}.png", f"{(mask == 1).mean():.4f}"])
    return folder / "values.csv"


def masks(folder: Path) -> Path:
    for name in ("images", "masks"):
        (folder / "set" / name).mkdir(parents=True)
    for number in range(IMAGES):
        image, mask, _ = scene(number)
        image.save(folder / "set" / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "set" / "masks" / f"{number}.png")
    return folder / "set"


def boxes(folder: Path) -> Path:
    (folder / "set").mkdir()
    images, annotations = [], []
    for number in range(IMAGES):
        image, _, found = scene(number)
        image.save(folder / "set" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 37, "width": 41})
        for name, (left, top, right, bottom) in found:
            box = [left, top, right - left, bottom - top]
            kind = 1 if name == "dark" else 2
            entry = {
                "id": len(annotations),
                "image_id": number,
                "category_id": kind,
                "bbox": box,
                "iscrowd": 0,
            }
            annotations.append(entry)
    names = [{"id": 1, "name": "dark"}, {"id": 2, "name": "light"}]
    content = {"images": images, "annotations": annotations, "categories": names}
    (folder / "set" / "annotations.json").write_text(json.dumps(content))
    return folder / "set"


CASES = {
    "value": Case("own_tasks:ReadValue", values, "closeness", "value"),
    "paint": Case("own_tasks:Paint", masks, "miou", "share", "figure"),
    "spots": Case("own_tasks:FindSpots", boxes, "recall", "confidence"),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory) -> tuple[Case, Path, Path]:
    """A case with its data, and where its run shall lie."""
    found = CASES[request.param]
    return found, found.make(tmp_path_factory.mktemp("data")), tmp_path_factory.mktemp("runs") / "own"


def good(done):
    assert done.returncode == 0, done.stderr
    return done


def test_the_whole_way(case, vitrail, tmp_path):
    (task, _, main, column, of), data, run = case
    told = json.loads(good(vitrail("check", data, "--task", task, "--json")).stdout)
    assert told["kept"] == IMAGES
    fixed = (
        "--weights none --batch 6 --micro 4 --precision float32 --augment flip_crop --lr 0.003 --device cpu"
    )
    words = f"--task {task} --model vit_digits --epochs 2 {fixed}".split()
    good(vitrail("train", data, *words, "--out", run, "--json"))
    more = json.loads(good(vitrail("train", "--resume", run, "--epochs", "1", "--json")).stdout)
    assert more["cost"]["epochs"] == pytest.approx(3, abs=0.5)
    report = json.loads(good(vitrail("eval", run, "--json")).stdout)
    assert report["verdict"] == more["verdict"]
    assert report["test"][main] == pytest.approx(more["test"][main])
    page = (run / "report.html").read_text(encoding="utf-8")
    assert ("What it found, in red." in page) == (task == "own_tasks:Paint")
    pictures = [min(data.parent.rglob(f"{number}.png")) for number in range(5)]  # images before masks
    good(vitrail("predict", run, *pictures, "--csv", tmp_path / "answers.csv"))
    with (tmp_path / "answers.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {Path(row["path"]).name for row in rows} == {picture.name for picture in pictures}
    assert not any(row["error"] for row in rows)
    assert column in rows[0]
    asked = ["--of", of] if of else []
    good(vitrail("explain", run, pictures[0], "--method", "rollout", *asked, "--out", tmp_path / "maps"))
    assert list((tmp_path / "maps").iterdir())
    exported = json.loads(
        good(vitrail("export", run, "--format", "onnx", "--out", tmp_path / "own.onnx", "--json")).stdout
    )
    assert (
        exported["agreement"]["same_top"] + exported["agreement"]["ties"] == exported["agreement"]["pictures"]
    )
    models = (run, tmp_path / "own.onnx")
    there, here = (json.loads(good(vitrail("predict", one, *pictures, "--json")).stdout) for one in models)
    assert [list(one) for one in here] == [list(one) for one in there]


def test_truths_of_another_kind_than_the_default_task_takes_are_told(case, vitrail):
    (task, *_), data, _ = case
    of_boxes = task == "own_tasks:FindSpots"
    done = vitrail("check", data, *(["--task", "classify"] if of_boxes else []))
    if task == "own_tasks:Paint":
        assert done.returncode == 0  # there is a task for masks
        return
    assert "not classes" in done.stderr
    assert not of_boxes or "--task detect" in done.stderr
    assert done.returncode == 1


def test_augmentations_that_leave_the_truth_behind_are_refused(vitrail, tmp_path):
    data = masks(tmp_path)
    words = [
        "--task",
        "own_tasks:Paint",
        "--model",
        "vit_digits",
        "--weights",
        "none",
        "--augment",
        "trivial",
        "--epochs",
        "1",
    ]
    done = vitrail("train", data, *words, "--out", tmp_path / "run")
    assert done.returncode == 1
    assert "flip_crop" in done.stderr


def test_settings_of_classes_are_refused_by_name(case, vitrail, tmp_path):
    (task, *_), data, _ = case
    done = vitrail(
        "train", data, "--task", task, "--mixup", "0.2", "--weights", "none", "--out", tmp_path / "run"
    )
    assert done.returncode == 2
    assert "--mixup" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_dense_head_is_explained_from_the_patches_that_it_reads(tmp_path, vitrail):
    """Rollout used to begin at a class token that such a head never reads, and Grad-CAM was refused."""
    data, run = masks(tmp_path), tmp_path / "run"
    fixed = (
        "--weights none --epochs 1 --batch 6 --micro 6 --precision float32 --augment flip_crop --device cpu"
    )
    good(vitrail("train", data, *f"--task own_tasks:Paint --model vit_digits {fixed}".split(), "--out", run))
    network = Predictor(run).network
    assert network.head.reads == "levels"
    assert not network.head.from_prefix
    for method in ("rollout", "gradcam"):
        done = vitrail(
            "explain", run, data / "images" / "3.png", "--method", method, "--out", tmp_path / method
        )
        assert good(done)
