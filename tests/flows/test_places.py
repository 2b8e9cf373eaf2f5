"""Commands where places take no file, reports fail or an image cannot be drawn: told in words, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vitrail import plots
from vitrail.core import cache as caching
from vitrail.data import duplicates, loader
from vitrail.data.loader import ImageDataset, roomy
from vitrail.data.preprocess import Preprocess
from vitrail.export import graph_formats
from vitrail.export.words import Form
from vitrail.infer.predictor import Predictor
from vitrail.reports import evaluate_model as scoring
from vitrail.training import fit

FEW = ["weights=none", "model=vit_digits", "batch=16", "micro=16", "precision=float32", "workers=0"]


def strip(path: Path) -> Path:
    """Write an image of 5,000 × 2 px."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(len(str(path))).integers(0, 255, (2, 5000, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


@pytest.fixture
def conflicting(digits, tmp_path):
    """A data set of which the check has something to decide: one image under two labels."""

    def make(name: str) -> Path:
        data = shutil.copytree(digits, tmp_path / name)
        shutil.copy(sorted((data / "0").iterdir())[0], data / "1" / "twin.png")
        return data

    return make


def test_a_report_that_fails_loses_no_training_and_is_made_again(vitrail, digits, tmp_path, monkeypatch):
    data = shutil.copytree(digits, tmp_path / "data" / "train")
    for name in "0123":
        for split in ("val", "test"):
            (data.parent / split / name).mkdir(parents=True)
            shutil.copy(sorted((data / name).iterdir())[0], data.parent / split / name / "a.png")
    for number, name in enumerate("0123"):  # mistakes are shown, too
        strip(data.parent / "test" / name / f"{number}.png")

    def full(*given: object, **more: object) -> None:
        raise MemoryError

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(fit, "write_report", full)
        done = vitrail("train", data.parent, *FEW, "epochs=1", "--out", run)
        assert done.returncode == 1
        assert "its report could not be made: memory ran out" in done.stdout
        assert f"vitrail train --resume {run}" in done.stdout
        assert f"vitrail eval {run}" in done.stdout
        assert "model.safetensors" in done.stdout
        assert "report.html" not in done.stdout
        again = vitrail("train", "--resume", run, "--json")
        told = json.loads(again.stdout)
        assert (again.returncode, told["finished"], told["unreported"]) == (1, True, True)
    events = [json.loads(line)["event"] for line in (run / "history.jsonl").read_text().splitlines()]
    assert "finished" in events
    assert vitrail("eval", run).returncode == 0
    done = vitrail("train", "--resume", run)
    assert (done.returncode, "images it never saw" in done.stdout) == (0, True), done.stderr
    assert (run / "report.html").stat().st_size < 3_000_000


def test_a_report_of_an_older_model_does_not_stand_for_a_new_one(trained, tmp_path):
    run = fit.Run(shutil.copytree(trained, tmp_path / "run"))
    run.drop_stale_report()
    assert run.report_path.is_file()
    now = run.report_path.stat().st_mtime
    for path in run.folder.iterdir():
        if path != run.model_path:
            os.utime(path, (now - 100, now - 100))
    run.drop_stale_report()
    left = {path.name for path in run.folder.iterdir()}
    assert not left & {"report.json", "report.html", "README.md"}
    assert {"model.safetensors", "history.jsonl", "recipe.yaml"} <= left


def test_explain_answers_a_strip_and_the_others_where_one_fails(
    vitrail, trained, digits, tmp_path, monkeypatch
):
    good, thin = sorted((digits / "2").iterdir())[0], strip(tmp_path / "thin.png")
    for method in ("page", "all", "rollout", "attention"):
        out = tmp_path / method
        done = vitrail("explain", trained, thin, good, "--method", method, "--no-check", "--out", out)
        assert done.returncode == 0, done.stderr
        assert len(list(out.iterdir())) == 2
    drawn = plots.heat

    def fails_for_strips(image, *given):
        if image.width > 1000:
            raise MemoryError
        return drawn(image, *given)

    monkeypatch.setattr(plots, "heat", fails_for_strips)
    out = ["--method", "rollout", "--no-check", "--out", tmp_path / "out", "--json"]
    done = vitrail("explain", trained, good, thin, good, *out)
    assert done.returncode == 1
    assert f"{thin} could not be explained: memory ran out." in done.stderr
    assert done.stderr.endswith("1 of 3 images could not be explained; the others were processed.\n")
    first, second, third = json.loads(done.stdout)
    assert set(second) == {"path", "error"}
    assert Path(first["file"]).is_file()
    assert Path(third["file"]).is_file()


def test_explain_names_files_of_long_names_shorter(vitrail, trained, digits, tmp_path):
    long = tmp_path / ("n" * 251 + ".png")
    long.write_bytes(sorted((digits / "2").iterdir())[0].read_bytes())
    for _ in range(2):
        done = vitrail(
            "explain", trained, long, "--method", "rollout", "--no-check", "--out", tmp_path / "out"
        )
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_scores_are_told_where_their_page_fails(vitrail, trained, digits, tmp_path, monkeypatch):
    def fails(*given: object) -> str:
        raise ValueError("no such image")

    monkeypatch.setattr(scoring, "page_of_new", fails)
    done = vitrail("eval", trained, digits, "--html", tmp_path / "new.html")
    assert done.returncode == 1
    assert "right" in done.stdout
    assert "new.html could not be made: ValueError: no such image." in done.stderr


def test_check_tells_first_and_then_writes(vitrail, conflicting):
    data = conflicting("d" * 250)  # as long as a name may be: its history would have a longer one
    done = vitrail("check", data)
    assert done.returncode == 0
    assert "79 images in 4 classes" in done.stdout
    assert "are not saved, so they cannot be undone" in done.stderr
    assert "--undo" not in done.stdout
    dropped = vitrail("check", data, "--drop", "0/" + sorted(p.name for p in (data / "0").iterdir())[1])
    assert dropped.returncode == 1
    assert "78 images in 4 classes" in dropped.stdout
    assert "could not be written" in dropped.stderr
    page = vitrail("check", data, "--json", "--html", data / "0")
    assert page.returncode == 1
    assert json.loads(page.stdout)["kept"]


def test_a_history_that_cannot_be_read_is_not_passed_over(vitrail, conflicting, tmp_path):
    data = conflicting("data")
    (tmp_path / "data.vitrail.jsonl").mkdir()
    done = vitrail("check", data)
    assert done.returncode == 1
    assert "where decisions about these images stand, cannot be read: Is a directory" in done.stderr


def test_predict_answers_others_than_the_name_that_is_too_long(vitrail, trained, digits, tmp_path):
    good = sorted((digits / "2").iterdir())[0]
    done = vitrail("predict", trained, "n" * 300, good, "--json")
    assert done.returncode == 1
    first, second = json.loads(done.stdout)
    assert "File name too long" in first["error"]
    assert second["label"]


def test_answers_that_a_table_does_not_take_are_printed(vitrail, trained, digits):
    if not Path("/dev/full").is_char_device():
        pytest.skip("this system has no /dev/full")
    done = vitrail("predict", trained, sorted((digits / "2").iterdir())[0], "--csv", "/dev/full")
    assert done.returncode == 1
    assert "/dev/full could not be written: No space left on device. Free some disk space" in done.stderr
    assert "answer" in done.stdout


PICTURE, RUN, DATA, OUT = "picture", "run", "data", "out"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["check", DATA], 0),
        (["check", "digits"], 0),
        (["train", DATA, *FEW, "--dry-run", "epochs=1"], 0),
        (["predict", RUN, PICTURE], 0),
        (["eval", RUN], 0),
        (["weights", "vit_b16*"], 0),
        (["weights", "add", RUN], 1),
    ],
)
def test_without_a_cache_the_work_goes_on(
    vitrail, trained, digits, tmp_path, monkeypatch, caplog, words, code
):
    """As on a HOME without right or room: only what was to be kept there by name is an error."""
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "file" / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    caching._temporary.cache_clear()
    there = {DATA: digits, RUN: trained, PICTURE: sorted((digits / "2").iterdir())[0]}
    if words[0] == "weights":
        there[RUN] = trained / "model.safetensors"
    done = vitrail(*[there.get(word, word) for word in words])
    caching._temporary.cache_clear()
    assert done.returncode == code, done.stderr
    said = done.stderr + "".join(caplog.messages)
    assert said.count("the work continues without a cache") <= 1
    if code:
        assert "added.json could not be written" in done.stderr
    else:
        assert done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["explain", RUN, PICTURE, "--out", OUT],
        ["inspect", RUN, "--out", OUT],
        ["inspect", RUN, "--pipeline", PICTURE, "--out", OUT],
        ["export", RUN, "--out", f"{OUT}/m.onnx"],
        ["export", RUN, "--format", "timm", "--out", f"{OUT}/m"],
        ["convert", "model", "--out", f"{OUT}/m.safetensors"],
        ["predict", RUN, PICTURE, "--csv", f"{OUT}/a.csv"],
        ["eval", RUN, DATA, "--html", f"{OUT}/a.html"],
        ["train", DATA, *FEW, "epochs=1", "--out", f"{OUT}/r"],
        ["demo", "--out", f"{OUT}/d"],
    ],
)
def test_a_place_that_takes_no_file_is_refused_in_a_sentence(vitrail, trained, digits, tmp_path, words):
    (tmp_path / "file").write_text("no folder")
    picture = str(sorted((digits / "2").iterdir())[0])
    there = {
        DATA: str(digits),
        RUN: str(trained),
        PICTURE: picture,
        "model": str(trained / "model.safetensors"),
    }
    place = str(tmp_path / "file")
    typed = [place + word[len(OUT) :] if word.startswith(OUT) else there.get(word, word) for word in words]
    done = vitrail(*typed)
    assert done.returncode == 1
    assert str(tmp_path / "file") in done.stderr
    assert (tmp_path / "file").read_text() == "no folder"


def test_a_torch_program_on_a_full_disk_ends_in_words(small_disk, trained):
    """torch's own writer ended the process: its destructor throws."""
    with suppress(OSError):
        (small_disk / "much").write_bytes(bytes(1_900_000))
    with pytest.raises(Exception, match=r"m\.pt2 could not be written: No space left"):
        graph_formats.write(
            Predictor(trained), small_disk / "m.pt2", Form(), lambda path: pytest.fail("it was asked")
        )
    assert [path.name for path in small_disk.iterdir()] == ["much"]


def test_twins_are_found_without_a_temporary_file(monkeypatch):
    draw = np.random.default_rng(0)
    views = [draw.integers(0, 255, (64, 64), dtype=np.uint8) for _ in range(4)]
    views[3] = views[1]
    pairs = [(0, 2), (1, 3), (0, 1)]
    expected = list(duplicates._confirmed(pairs, views.__getitem__, 2))
    assert expected == [(1, 3)]

    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(duplicates.tempfile, "TemporaryFile", full)
    assert list(duplicates._confirmed(pairs, views.__getitem__, 2)) == expected


def test_no_more_processes_read_than_shared_memory_has_room_for(monkeypatch, tmp_path, caplog):
    pictures = ImageDataset([], tmp_path, Preprocess((224, 224)), None)
    monkeypatch.setattr(loader, "SHARED", str(tmp_path))
    batch = 4 * 32 * 3 * 224 * 224
    for room, workers in ((100 * batch, 4), (7 * batch, 3), (2 * batch, 0)):
        status = SimpleNamespace(f_bavail=room // 4096 + 1, f_frsize=4096)
        monkeypatch.setattr(loader.os, "statvfs", lambda path, status=status: status)
        assert roomy(4, pictures, 32) == workers
    assert [
        "room for 3 instead of 4" in caplog.messages[0],
        "room for 0 instead of 4" in caplog.messages[1],
    ] == [
        True,
        True,
    ]
    assert len(caplog.messages) == 2
