"""Objects whose annotations are broken, lack an image, or are more than a model answers: each is named in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pictures import encode, put, scene

from vitrail.core.errors import DataError
from vitrail.data.layouts import sniff
from vitrail.data.prepare import Prepared, prepare

SIZE = (40, 60)
RIGHT = [[5, 5, 25, 5, 25, 25, 5, 25]]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


def written(root: Path, *first: Any) -> Path:
    """Write two images: objects with these outlines, and one right object."""
    images, annotations = [], []
    for number, outlines in enumerate((first, (RIGHT,))):
        put(root / f"images/{number}.png", encode(scene(number, SIZE), "PNG"))
        images.append({"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]})
        for outline in outlines:
            stated = {"id": 10 + len(annotations), "image_id": number, "category_id": 1}
            annotations.append({**stated, "bbox": [5, 5, 20, 20], "segmentation": outline})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}
    put(root / "objects.json", json.dumps(content))
    return root


def texts(prepared: Prepared) -> dict[str, str]:
    return {finding.kind: finding.text for finding in prepared.report.findings}


@pytest.mark.parametrize(
    ("outline", "why"),
    [
        ("hello", "no list of polygons and no run lengths"),
        (["hello"], "no list of polygons, each a list"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon of 7 numbers"),
        ([[1, 2, float("nan"), 4, 5, 6]], "no finite number"),
        ({"size": [40, 60], "counts": "zzz~~"}, "the run lengths of a mask are broken"),
        ({"size": [40, 60], "counts": [20, 80]}, "count 100 pixels"),
        ({"size": [40, 60]}, "size and counts"),
    ],
)
def test_a_broken_outline_names_its_annotation(tmp_path: Path, outline: Any, why: str) -> None:
    root = written(tmp_path / "set", outline)
    (entry, _) = sniff(root, task="instances").found
    assert "annotation 10 in objects.json whose segmentation is" in entry.trouble
    assert why in entry.trouble
    assert not any(one.trouble for one in sniff(root, task="detect").found)  # boxes need no outline


def test_objects_without_an_outline_are_called_so(tmp_path: Path) -> None:
    outside = [[100, 100, 150, 100, 150, 150]]
    said = texts(prepare(written(tmp_path / "set", outside, [[1, 2, 3, 4]], RIGHT), task="instances"))
    assert "(and 2 without an outline in the image, which do not count)" in said["object classes"]
    assert "neither learned nor counted" in said["empty mask"]
    assert "1 polygon of fewer than three corners" in said["few corners"]
    assert "no outline" not in said


@pytest.mark.parametrize("task", ["detect", "instances"])
def test_more_objects_than_a_model_answers_are_named(tmp_path: Path, task: str) -> None:
    said = texts(prepare(written(tmp_path / "set", *[RIGHT] * 301), task=task))
    assert "images/0.png (301)" in said["many objects"]


def test_annotations_without_images_say_so(tmp_path: Path) -> None:
    put(tmp_path / "set/images/0.png", encode(scene(0, SIZE), "PNG"))
    put(tmp_path / "set/objects.json", json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(DataError, match=r"objects\.json in set lists no images"):
        sniff(tmp_path / "set", task="instances")
    with pytest.raises(DataError, match="folder of the images"):
        sniff(tmp_path / "set/objects.json")
    put(tmp_path / "yolo/labels/1.txt", "0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    with pytest.raises(DataError, match="labels of YOLO"):
        sniff(tmp_path / "yolo")


def test_images_without_objects_lack_outlines(tmp_path: Path) -> None:
    root = written(tmp_path / "set")
    content = json.loads((root / "objects.json").read_text())
    put(root / "objects.json", json.dumps({**content, "annotations": []}))
    with pytest.raises(DataError, match="objects with outlines"):
        prepare(root, task="instances")
