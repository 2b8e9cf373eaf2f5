from __future__ import annotations

import json
from pathlib import Path

import pytest

from vitrail.core.errors import DataError
from vitrail.data.labels import join_labels, natural, split_labels, split_of
from vitrail.data.manifest import COLUMNS, Manifest, Row
from vitrail.data.truth import Truth
from vitrail.tasks.classify.targets import ClassTargets, labels_of

ROWS = [
    Row("img10.png", "img10.png", "", "class 10", "train"),
    Row("img2.png", "img2.png", "", "class 2", "val", "g", "ff"),
    Row('雪, "x".png', '雪, "x".png', "", "花 🌸", "test"),
    Row("bad.png", "bad.png", "", "zzz", "", "", "", "quarantined", "holds text,\nnot an image"),
    Row("007.png", "007.png", "", "class 1", "train"),
]


def test_it_survives_a_file(tmp_path: Path) -> None:
    written = Manifest.of(ROWS, tmp_path)
    path = written.write(tmp_path / "manifest.csv")
    read = Manifest.read(path, tmp_path)
    assert read.rows(state=None) == written.rows(state=None)
    assert path.read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)
    assert path.read_text(encoding="utf-8").splitlines()[1].startswith("007.png")  # no number was made of it
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.csv", "manifest.json"]


def test_long_truths_lie_beside_it_and_come_back_to_the_letter(tmp_path: Path) -> None:
    rows = [
        Row("a.png", "a.png", "window=0,0,9,9", '[{"class":"é","box":[0,1.5,2,3]}]', "train"),
        Row("b.tif", "b.tif", "page=3", '[1, "other spaces"]'),
        Row("c.nii", "c.nii", "slice=40", "{no JSON"),
        Row("d.png", "d.png", "", "a caption of two lines\u2028\n" * 100),
        Row("e.png", "e.png", "", "masks/e.png"),
    ]
    truth = Truth("boxes", ("é",), ((1, 2, 3),), 255, ("red", "near infrared"), "mm")
    written = Manifest.of(rows, tmp_path, truth)
    path = written.write(tmp_path / "manifest.csv")
    read = Manifest.read(path, tmp_path)
    assert read.rows(state=None) == rows
    assert read.truth == truth
    lines = [json.loads(line) for line in (tmp_path / "targets.jsonl").read_text().split("\n") if line]
    assert [line["id"] for line in lines] == ["a.png", "b.tif", "c.nii", "d.png"]
    assert lines[0]["target"] == [{"class": "é", "box": [0, 1.5, 2, 3]}]
    assert path.read_text(encoding="utf-8").splitlines()[5].startswith('e.png,e.png,"",masks/e.png')
    Manifest.of(ROWS, tmp_path).write(path)  # nothing of the old truths is left
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.csv", "manifest.json"]
    assert Manifest.read(path, tmp_path).rows(state=None) == Manifest.of(ROWS, tmp_path).rows(state=None)


def test_a_header_and_truths_that_are_broken_are_named(tmp_path: Path) -> None:
    path = Manifest.of([Row("a.png", "a.png", "", "[1]")], tmp_path, Truth("boxes")).write(
        tmp_path / "manifest.csv"
    )
    (tmp_path / "targets.jsonl").write_text('{"id": "a.png"}\n')
    with pytest.raises(DataError, match=r"Line 1 of .*targets.jsonl is broken"):
        Manifest.read(path, tmp_path)
    (tmp_path / "targets.jsonl").unlink()
    with pytest.raises(DataError, match=r"targets.jsonl holds 0 of the 1 truths"):
        Manifest.read(path, tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match=r"manifest.json, the header of the manifest, is broken"):
        Manifest.read(path, tmp_path)


@pytest.mark.parametrize(
    ("labels", "truth"),
    [
        (("b10", "b2", "a"), Truth("class", ("a", "b2", "b10"))),
        (("b|a", "", "a"), Truth("classes", ("a", "b"))),
    ],
)
def test_a_manifest_of_labels_only_is_read(tmp_path: Path, labels: tuple[str, ...], truth: Truth) -> None:
    """As every vitrail wrote it that knew no other truths: its rows tell what they are."""
    cells = "".join(f"{i}.png,{i}.png,{cell},train,,ff,kept,\n" for i, cell in enumerate(labels))
    cells += "9.png,9.png,zzz|x,,,,quarantined,broken\n"
    path = tmp_path / "manifest.csv"
    path.write_text(f"id,path,label,split,group,hash,state,reason\n{cells}")
    read = Manifest.read(path, tmp_path)
    assert read.truth == truth
    assert [row.target for row in read.rows(state=None)] == [*labels, "zzz|x"]
    assert read.rows()[0] == Row("0.png", "0.png", "", labels[0], "train", "", "ff")


def test_classes_stand_in_natural_order_and_only_kept_ones_count() -> None:
    read = Manifest.of(ROWS, Path())
    assert read.truth == Truth("class", ("class 1", "class 2", "class 10", "花 🌸"))


def test_rows_by_split_and_state() -> None:
    read = Manifest.of(ROWS, Path())
    assert [row.id for row in read.rows("train")] == ["007.png", "img10.png"]
    assert [row.id for row in read.rows(state="quarantined")] == ["bad.png"]
    assert read.states() == {"kept": 4, "quarantined": 1, "dropped": 0}
    assert read.counts(ClassTargets(read.truth))["val"] == {
        "class 1": 0,
        "class 2": 1,
        "class 10": 0,
        "花 🌸": 0,
    }


def test_a_manifest_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Put back a copy of it, or train again"):
        Manifest.read(tmp_path / "none.csv", tmp_path)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="columns"):
        Manifest.read(tmp_path / "other.csv", tmp_path)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError):
        Manifest.read(tmp_path / "empty.csv", tmp_path)


def test_labels_are_joined_and_split() -> None:
    assert join_labels(["b10", "b2", "b2", "a|c"]) == r"a\|c|b2|b10"
    assert split_labels(r"a\|c|b2|b10") == ("a|c", "b2", "b10")
    assert split_labels("") == ()
    assert labels_of(Row("x", "x", "", "a|b")) == ("a", "b")


def test_natural_order() -> None:
    names = ["img10", "img2", "Img1", "img02", "b", "B", "10", "9", "é", "e"]
    ordered = sorted(names, key=natural)
    assert ordered.index("9") < ordered.index("10") < ordered.index("Img1")
    assert ordered.index("img2") < ordered.index("img10")
    assert sorted(["e\u0301", "\u00e9"], key=natural) == sorted(["\u00e9", "e\u0301"], key=natural)


def test_splits_are_known_by_their_usual_names() -> None:
    assert [split_of(n) for n in ("Train", "valid", "validation", "dev", "VAL", "test", "cats")] == [
        "train", "val", "val", "val", "val", "test", None,
    ]  # fmt: skip
