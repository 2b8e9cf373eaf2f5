"""`vitrail check` from its words to its page."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from pictures import encode, folders, put, scene

from vitrail.cli.help import verb_help
from vitrail.cli.main import run
from vitrail.core.catalog import DEFAULT_TASKS, KINDS


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with a file that is no image, a conflict and a name that HTML must not take for its own."""
    root = folders(tmp_path / "my photos", {"cat": 12, "<b>狗 🐕</b>": 12}, size=(60, 80))
    put(root / "cat/bad & <i>.jpg", "text")
    shutil.copy(root / "cat/1.png", root / "<b>狗 🐕</b>" / "same.png")
    return root


def call(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    code = run(["check", *map(str, words)])
    return code, capsys.readouterr().out


def test_it_says_what_is_wrong_and_what_to_do(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = call(capsys, photos)
    assert code == 0
    assert said.startswith("Class folders, because 2 folders hold the images")
    assert "cat/bad & <i>.jpg holds text, not an image" in said
    assert "cat/1.png (cat)" in said
    assert f"undo    vitrail check '{photos}' --undo 1" in said
    assert said.endswith(f"next    vitrail train '{photos}'\n")


def test_json_is_one_value(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = call(capsys, photos, "--json")
    told = json.loads(said)
    assert code == 0
    assert (told["layout"], told["pictures"], told["kept"]) == ("folders", 26, 23)
    assert {finding["kind"] for finding in told["findings"]} == {"unreadable", "conflict"}
    assert told["decisions"][0]["ids"] == ["<b>狗 🐕</b>/same.png", "cat/1.png"]


def test_a_decision_is_taken_back_and_shown(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, photos)
    history = photos.with_name("my photos.vitrail.jsonl")
    assert len(history.read_text(encoding="utf-8").splitlines()) == 1
    assert "every copy kept out: " in call(capsys, photos)[1]
    assert json.loads(call(capsys, photos, "--undo", "1", "--json")[1])["kept"] == 25
    told = call(capsys, photos)[1]
    assert "different labels, every copy kept: " in told
    assert json.loads(call(capsys, photos, "--drop", "cat/2.png", "--json")[1])["kept"] == 24
    code, said = call(capsys, photos, "--history")
    assert code == 0
    assert [line[:12] for line in said.splitlines()] == ["1  kept out ", "2  took back", "3  dropped c"]
    assert "(undone)" in said.splitlines()[0]
    assert json.loads(call(capsys, photos, "--history", "--json")[1])[0]["taken_back"] is True
    assert "vitrail check DATA --history" in call(capsys, photos)[1]


def test_the_page_is_one_file_that_shows_everything(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = photos.parent / "out" / "check.html"
    assert call(capsys, photos, "--html", page)[0] == 0
    html = page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=[\"'](?!data:)", html)  # nothing is fetched from anywhere
    assert not re.search(r"<script|@import|url\(", html)
    assert "&lt;b&gt;狗 🐕&lt;/b&gt;" in html
    assert "<b>狗 🐕</b>" not in html
    assert "bad &amp; &lt;i&gt;.jpg holds text" in html
    assert html.count("<img ") >= 2 + 12
    assert "One image, several labels" in html


def test_a_clean_set_and_a_large_one_have_pages_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folders(tmp_path / "set", {f"class {i}": 12 for i in range(14)}, size=(20, 20))
    assert call(capsys, root, "--html", tmp_path / "a.html")[0] == 0
    html = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "No problems: all files are readable" in html
    assert "and 2 more classes" in html


@pytest.mark.parametrize(
    "words",
    [
        ["nowhere"],
        ["set", "--undo", "7"],
        ["set", "--layout", "tabel"],
        ["set/a"],
        ["set", "--drop", "a/9.png"],
    ],
)
def test_errors_are_sentences_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: Sequence[str]
) -> None:
    folders(tmp_path / "set", {"a": 3, "b": 3})
    monkeypatch.chdir(tmp_path)
    assert run(["check", *words]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "set.vitrail.jsonl").exists()


def test_unknown_layouts_and_sets_are_told_which_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "set", {"a": 3, "b": 3})
    monkeypatch.chdir(tmp_path)
    for words, said in (
        (
            ["check", "set", "--layout", "foo"],
            "There are: huggingface, raster, webdataset, boxes, panoptic, masks, clips, captions, table, annotations",
        ),
        (
            ["convert", "x.npz", "--out", "y.npz", "--to", "foo"],
            "There are: vitrail, google, timm, huggingface",
        ),
        (["check", "digit"], "Did you mean 'digits'?"),
    ):
        assert run(words) == 1
        assert said in capsys.readouterr().err


def test_help_names_every_layout() -> None:
    layouts = verb_help("check").partition("guess is wrong:")[2]
    assert [name for name in KINDS["layout"] if name not in layouts] == []


@pytest.mark.parametrize("verb", ["check", "train"])
def test_help_names_every_usual_task(verb: str) -> None:
    shown = " ".join(verb_help(verb).replace("│", " ").split())
    assert f"{', '.join(DEFAULT_TASKS.values())}, or" in shown


def test_crops_are_checked_and_trained_on_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = {"images": [], "categories": [{"id": i, "name": "ab"[i]} for i in range(2)], "annotations": []}
    for i in range(12):
        put(tmp_path / "boxes" / f"{i}.png", encode(scene(i, (60, 80))))
        coco["images"].append({"id": i, "file_name": f"{i}.png"})
        for j in range(2):
            coco["annotations"].append({"image_id": i, "category_id": j, "bbox": [40 * j, 0, 40, 60]})
    put(tmp_path / "boxes" / "coco.json", json.dumps(coco))
    code, said = call(capsys, tmp_path / "boxes", "--layout", "crops")
    assert code == 0
    assert "24 images in 2 classes, 40 × 60 px" in said
    assert said.endswith("--layout crops\n")
