"""Captions as targets: what is read, drawn, said and excluded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.data.captions import join_captions
from vitrail.data.doctor import Report, examine
from vitrail.data.findings import Finding
from vitrail.data.layouts import Entry, Layout
from vitrail.data.manifest import Row
from vitrail.data.targets import targets_for
from vitrail.data.truth import Truth
from vitrail.tasks.retrieve.targets import CaptionTargets, unread_captions

TRUTH = Truth("caption")


@pytest.fixture
def targets() -> CaptionTargets:
    return CaptionTargets(TRUTH)


def row(name: str, *captions: str, **more: str) -> Row:
    return Row(name, name, target=join_captions(captions), **more)


def checked(
    folder: Path, captions: dict[str, tuple[str, ...]], splits: dict[str, str] | None = None
) -> Report:
    """Check images with these captions; images with names that differ only behind a + are copies."""
    entries = []
    for name, own in captions.items():
        draw = np.random.default_rng(ord(name[0]))
        noise = draw.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((40, 40)).save(folder / f"{name}.png")
        entries.append(Entry(f"{name}.png", f"{name}.png", join_captions(own), (splits or {}).get(name, "")))
    layout = Layout("captions", folder, "", tuple(entries), truth=TRUTH)
    return examine(layout, targets=targets_for(TRUTH, "retrieve"))


def of(report: Report, kind: str) -> Finding:
    return next(one for one in report.findings if one.kind == kind)


def test_captions_are_read(targets: CaptionTargets) -> None:
    assert targets.read(row("a", "a red bus"), Path()) == ("a red bus",)
    assert targets.read(row("a", "a red bus", "bus in the rain"), Path()) == ("a red bus", "bus in the rain")
    with pytest.raises(DataError, match="a has no caption"):
        targets.read(row("a"), Path())


def test_each_caption_is_drawn_as_often_and_by_its_key_alone(targets: CaptionTargets) -> None:
    captions = ("one", "two", "three")
    drawn = [targets.drawn(captions, key)[0] for key in range(300)]
    assert [targets.drawn(captions, key)[0] for key in range(300)] == drawn
    assert all(70 < drawn.count(one) < 130 for one in captions)
    assert all(sorted(targets.drawn(captions, key)) == sorted(captions) for key in range(9))


def test_other_truths_are_refused() -> None:
    with pytest.raises(DataError, match=r"Retrieval needs captions.*'class'.*--task classify"):
        CaptionTargets.gather(Truth("class"), [])


def test_an_empty_caption_is_out_and_a_long_one_is_kept(tmp_path: Path) -> None:
    long = " ".join(f"word{i}" for i in range(500))
    report = checked(
        tmp_path, {"a": ("",), "b": (long,), "c": ("a red bus", "a bus"), "d": ("IMG_2041.JPG",)}
    )
    assert {one.id: one.state for one in report.rows} == {
        "a.png": "quarantined", "b.png": "kept", "c.png": "kept", "d.png": "kept"
    }  # fmt: skip
    assert of(report, "no caption").ids == ("a.png",)
    assert "a caption of 500 words: b.png" in of(report, "long caption").text
    assert "the rest is cut off" in of(report, "long caption").text
    assert of(report, "file name as caption").ids == ("d.png",)
    assert report.targets.describe() == " with 4 captions"


def test_the_same_caption_of_many_images_is_said(tmp_path: Path) -> None:
    bus, tree = "a red bus", "a tree"
    captions = {"a": ("A red  bus",), "b": (bus, "wet"), "c": (tree,), "d": (tree,), "e": (bus,)}
    found = of(checked(tmp_path, captions), "shared caption")
    assert found.text.startswith(
        "2 captions belong to several images: 'a red bus' of 3 images, 'a tree' of 2 images."
    )
    assert "no mistakes of each other" in found.text
    assert (set(found.ids), found.grave) == ({f"{name}.png" for name in "abcde"}, False)


def test_the_same_caption_on_both_sides_is_said_and_not_forbidden(tmp_path: Path) -> None:
    captions = {"a": ("a red bus",), "b": ("a red bus",), "c": ("a tree",), "d": ("a house",)}
    splits = {"a": "train", "b": "test", "c": "train", "d": "test"}
    report = checked(tmp_path, captions, splits)
    found = of(report, "caption leak")
    assert found.ids == ("b.png",)
    assert not found.grave
    assert all(one.state == "kept" and not one.group for one in report.rows)
    assert not [one for one in checked(tmp_path, captions).findings if one.kind == "caption leak"]


def test_copies_with_other_captions_do_not_contradict_and_stay_together(tmp_path: Path) -> None:
    report = checked(tmp_path, {"a": ("a red bus",), "a+copy": ("wet weather",), "b": ("a tree",)})
    by_id = {one.id: one for one in report.rows}
    assert all(one.state == "kept" for one in report.rows)
    assert by_id["a.png"].group == by_id["a+copy.png"].group != ""
    assert set(of(report, "captions of copies").ids) == {"a.png", "a+copy.png"}
    assert not [one for one in report.findings if one.kind in {"conflict", "doubtful"}]


def test_names_of_classes_are_no_captions(targets: CaptionTargets) -> None:
    def found(texts: list[str]) -> list[Finding]:
        rows = [row(f"{i}", text, state="kept") for i, text in enumerate(texts)]
        return [one for one in targets.check_set(rows) if one.kind == "class names"]

    (one,) = found(["red bus", "green car"] * 15)
    assert one.text.startswith(
        "The captions look like names of classes (2 different ones of 30 images: 'red bus'"
    )
    assert (one.grave, one.hint) == (True, "To train classes: --task classify.")
    assert found([f"w{i}" for i in range(20)])
    assert not found([f"a red bus in street {i % 9}" for i in range(30)])
    assert not found([f"IMG_{i}.jpg" for i in range(30)])
    assert not found(["red bus", "green car"])


def test_scripts_are_said(tmp_path: Path) -> None:
    report = checked(tmp_path, {"a": ("a red bus",), "b": ("一辆红色的公共汽车",), "c": ("красный bus",)})
    found = of(report, "script")
    assert found.text.startswith("Of 3 captions, some have letters of Chinese (1), Cyrillic (1).")
    assert set(found.ids) == {"b.png", "c.png"}
    latin = checked(tmp_path, {"a": ("ein Bus",), "b": ("un café",)})
    assert not [one for one in latin.findings if one.kind == "script"]


def test_captions_that_a_vocabulary_cuts_or_cannot_read() -> None:
    pytest.importorskip("tokenizers")
    from vitrail.data.vocabulary import learnt_vocabulary

    english = [
        f"a {colour} {thing} in the rain" for colour in ("red", "green") for thing in ("bus", "car", "tree")
    ]
    vocabulary = learnt_vocabulary(english * 4, 400, context=12)
    rows = [row("a", english[0]), row("b", english[1] * 9), row("c", "一辆红色的公共汽车")]
    cut, script = unread_captions(rows, vocabulary)
    assert cut.startswith("2 captions of 3 longer than the 12 tokens that the text tower reads")
    assert script.startswith("1 caption of 3 in Chinese letters")
    assert script.endswith("more captions in these letters would help.")
    assert unread_captions(rows[:1], vocabulary) == []


def test_words_of_pages_are_short(targets: CaptionTargets) -> None:
    assert targets.words(row("a", "a red\nbus")) == "a red bus"
    long = targets.words(row("a", "word " * 100, "another"))
    assert (len(long) <= 70, long.endswith("… (+1)")) == (True, True)
    assert targets.words(row("a")) == ""


def test_sets_that_teach_nothing(targets: CaptionTargets) -> None:
    targets.usable([row("a", "a bus"), row("b", "a tree")], [])
    with pytest.raises(DataError, match="only one image with a caption"):
        targets.usable([row("a", "a bus")], [])
    with pytest.raises(DataError, match="only the same caption for all images"):
        targets.usable([row("a", "a bus"), row("b", "A  bus")], [])
    with pytest.raises(DataError, match="no image with a truth"):
        targets.usable([], [])
