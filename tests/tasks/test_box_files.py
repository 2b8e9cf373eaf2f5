"""Boxes written for other programs are read back as the same boxes, by our own readers too."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitrail.core.errors import DataError, VitrailError
from vitrail.data.boxes import Boxes, make_boxes, make_found
from vitrail.data.layouts import Layout, sniff
from vitrail.data.manifest import Row
from vitrail.tasks.detect.files import (
    ImageBoxes,
    coco_content,
    coco_results,
    csv_text,
    from_yolo,
    to_supervision,
    to_yolo,
    write_coco,
    write_csv,
    write_yolo,
)
from vitrail.tasks.detect.targets import DetectTargets

NAMES = ("zebra", "ant", "großer Wal, grau")
SIZES = ((40, 60), (53, 31), (64, 64))


@pytest.fixture
def images(tmp_path: Path) -> list[ImageBoxes]:
    """Three images: several boxes, one at the rim of a fraction of a pixel, and background."""
    truths = [
        make_boxes([[1, 2, 30, 20.125], [0, 0, 60, 40], [10.5, 3, 12, 39]], [2, 0, 1]),
        make_boxes([[0, 0, 0.5, 53]], [1]),
        make_boxes(),
    ]
    found = []
    for i, (size, boxes) in enumerate(zip(SIZES, truths, strict=True)):
        path = f"images/{i}.png"
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", size[::-1], (i * 40, 90, 20)).save(tmp_path / path)
        found.append(ImageBoxes(path, size, boxes))
    return found


def read(layout: Layout) -> dict[str, tuple[tuple[str, ...], Boxes]]:
    """Return the classes and boxes of every image by its name."""
    targets = DetectTargets(layout.truth)
    rows = [Row(one.id, one.path, target=one.target) for one in layout.entries()]
    boxes = {row.id: targets.read(row, layout.root) for row in rows}
    names = layout.truth.names
    return {name: (tuple(names[kind] for kind in one.kinds.tolist()), one) for name, one in boxes.items()}


def equal(layout: Layout, images: list[ImageBoxes], tolerance: float = 1e-3) -> bool:
    found = read(layout)
    assert found.keys() == {one.path for one in images}
    for one in images:
        classes, boxes = found[one.path]
        assert classes == tuple(NAMES[kind] for kind in one.boxes.kinds.tolist())
        np.testing.assert_allclose(boxes.xyxy, one.boxes.xyxy, atol=tolerance)
    return True


def test_coco_is_read_back(tmp_path: Path, images: list[ImageBoxes]) -> None:
    write_coco(tmp_path / "boxes.json", images, NAMES)
    layout = sniff(tmp_path, layout="boxes")
    assert layout.truth.names == NAMES  # in their order, not sorted
    assert equal(layout, images)
    again = [one._replace(boxes=read(layout)[one.path][1]) for one in images]
    assert coco_content(again, NAMES) == json.loads((tmp_path / "boxes.json").read_text("utf-8"))


def test_yolo_is_read_back(tmp_path: Path, images: list[ImageBoxes]) -> None:
    write_yolo(tmp_path, images, NAMES)
    assert (tmp_path / "labels/2.txt").read_text() == ""
    layout = sniff(tmp_path, layout="boxes")
    assert layout.truth.names == NAMES
    assert equal(layout, images)
    for one in images:
        corners, kinds = from_yolo(to_yolo(one.boxes, one.size), one.size)
        np.testing.assert_allclose(corners, one.boxes.xyxy, atol=1e-6)
        assert kinds.tolist() == one.boxes.kinds.tolist()
    texts = [to_yolo(one.boxes, one.size) for one in images]
    write_yolo(tmp_path, [one._replace(boxes=read(layout)[one.path][1]) for one in images], NAMES)
    for i, text in enumerate(texts):
        first, second = (
            from_yolo(t, SIZES[i])[0] for t in (text, (tmp_path / f"labels/{i}.txt").read_text())
        )
        np.testing.assert_allclose(first, second, atol=1e-3)


def test_a_table_is_read_back(tmp_path: Path, images: list[ImageBoxes]) -> None:
    write_csv(tmp_path / "boxes.csv", images, NAMES)
    for layout in (sniff(tmp_path, layout="boxes"), sniff(tmp_path / "boxes.csv", layout="boxes")):
        assert equal(layout, images)


def test_predictions_are_written_with_their_scores(images: list[ImageBoxes]) -> None:
    found = make_found([[0, 0, 10, 20], [5, 5, 6, 8]], [1, 0], [0.25, 0.75])
    assert found.scores.tolist() == [0.75, 0.25]
    one = ImageBoxes("images/0.png", (40, 60), found)
    assert [line.split()[5] for line in to_yolo(found, (40, 60), scores=True).splitlines()] == [
        "0.75",
        "0.25",
    ]
    assert all(len(line.split()) == 5 for line in to_yolo(found, (40, 60)).splitlines())
    assert csv_text([one], NAMES).splitlines()[1] == "images/0.png,5,5,6,8,zebra,0.75"
    assert coco_results([images[2], one]) == [
        {"image_id": 2, "category_id": 1, "bbox": [5, 5, 1, 3], "score": 0.75},
        {"image_id": 2, "category_id": 2, "bbox": [0, 0, 10, 20], "score": 0.25},
    ]
    assert [a["score"] for a in coco_content([one], NAMES)["annotations"]] == [0.75, 0.25]


def test_what_cannot_be_written_is_named(tmp_path: Path, images: list[ImageBoxes]) -> None:
    with pytest.raises(DataError, match=r"0\.txt"):
        write_yolo(tmp_path, [images[0], images[0]._replace(path="images/0.jpg")], NAMES)
    with pytest.raises(DataError, match="four numbers"):
        from_yolo("0 0.5 0.5 a 0.1\n", (9, 9))


def test_supervision_gets_boxes_scores_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    found = make_found([[0, 0, 10, 20], [5, 5, 6, 8]], [1, 0], [0.25, 0.75])
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(VitrailError, match="pip install supervision"):
        to_supervision(found)

    def detections(**values: Any) -> dict[str, Any]:
        return values

    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=detections))  # type: ignore[arg-type]
    made = to_supervision(found, NAMES)
    assert made["xyxy"].dtype == made["confidence"].dtype == np.float32
    assert made["class_id"].tolist() == [0, 1]
    assert made["data"]["class_name"].tolist() == ["zebra", "ant"]
