from __future__ import annotations

from pathlib import Path

import pytest

from vitrail.core.errors import DataError
from vitrail.data.manifest import COLUMNS, Manifest, Row
from vitrail.data.names import join_labels, natural, split_labels, split_of
from vitrail.data.truth import Truth
from vitrail.tasks.classify.targets import ClassTargets, labels_of

ROWS = [
    Row("img10.png", "img10.png", "", "class 10", "train"),
    Row("img2.png", "img2.png", "", "class 2", "val", "g", "ff"),
    Row('雪, "x".png', '雪, "x".png', "", "花 🌸", "test"),
    Row("bad.png", "bad.png", "", "zzz", "", "", "", "quarantined", "holds text,\nnot a picture"),
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
