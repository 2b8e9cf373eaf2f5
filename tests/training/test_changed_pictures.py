"""Images of a run that changed, disappeared or moved: no command continues with other images without a message."""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vitrail.core.errors import DataError
from vitrail.data import changed_images
from vitrail.data.changed_images import find_changes, load_unchanged
from vitrail.data.manifest import TEST, TRAIN, VAL
from vitrail.data.prepare import prepare
from vitrail.evaluate.new_data import own_tests
from vitrail.infer.predictor import Predictor
from vitrail.infer.proof_images import readers_of, usable
from vitrail.reports.evaluate_model import evaluate_run
from vitrail.reports.thumbnails import Album
from vitrail.runs.image_changes import last_look
from vitrail.runs.run import Run
from vitrail.runs.train_options import TrainOptions
from vitrail.training.dry_run import dry_resume
from vitrail.training.fit import resume, train
from vitrail.training.resumption import Place


@pytest.fixture(scope="module")
def stopped(some_digits, tmp_path_factory):
    """A run stopped after the first of two epochs, in a folder with a space in its name."""
    place = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITRAIL_CACHE", str(place / "cache"))
        options = TrainOptions(
            model="vit_digits",
            weights="none",
            epochs=1,
            batch=8,
            micro=8,
            precision="float32",
            workers=0,
            out=str(place / "a run"),
        )
        data = shutil.copytree(some_digits("012", 20), place / "my digits")
        return data, train(str(data), options)


@pytest.fixture
def work(stopped, tmp_path, monkeypatch):
    """Copies of the run and its images; the run holds the new folder of the images."""
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    data = shutil.copytree(stopped[0], tmp_path / "new place" / "my digits")
    run = Run(shutil.copytree(stopped[1].folder, tmp_path / "a run"))
    tensors, counters = run.load_state()
    run.save_state(tensors, counters | {"root": str(data)})
    return data, run


def other(file: Path, keep_time: bool = False) -> None:
    """Replace an image by another one."""
    before = file.stat()
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(file)
    if keep_time:
        os.utime(file, (before.st_atime, before.st_mtime))


def test_a_resume_stops_where_pictures_changed_or_are_gone(work):
    data, run = work
    rows = run.manifest(data).rows(TRAIN)
    state = run.state_path.read_bytes()
    other(data / rows[0].path, keep_time=True)
    with pytest.raises(DataError, match=r"1 of 60 images is no longer what the run saw: 1 changed") as error:
        resume(run.folder, more=1)
    assert rows[0].id in str(error.value)
    assert f"vitrail train PLACE --resume '{run.folder}' --epochs 1" in str(error.value)
    assert f"vitrail train --resume '{run.folder}' --epochs 1 --changed" in str(error.value)
    (data / rows[1].path).unlink()
    with pytest.raises(DataError, match=r"1 changed \(.*\), 1 missing \(") as error:
        resume(run.folder, more=1, where=Place(changed=True))
    assert "--changed" not in str(error.value)  # nobody can train on an image that is gone
    with pytest.raises(DataError, match="1 missing"):
        dry_resume(run.folder, 1)
    assert run.state_path.read_bytes() == state


def test_changed_pictures_are_taken_where_that_is_wanted(work):
    data, run = work
    row = run.manifest(data).rows(TRAIN)[0]
    other(data / row.path)
    heard = []
    resume(run.folder, more=1, where=Place(changed=True), listeners=[heard.append])
    lines = [line for event in heard if event.kind == "note" for line in event.values["lines"]]
    assert any(
        f"1 changed ({row.id}). The run continues with them as they are now." in line for line in lines
    )
    event = next(one for one in run.history() if one["event"] == "resumed")
    assert event["pictures"] == [row.id]
    assert not event["exact"]
    new = next(one for one in run.manifest(data).rows() if one.id == row.id)
    assert new.hash != row.hash
    resume(run.folder)  # what was accepted is not asked about again
    (data / row.path).write_bytes(b"broken")
    with pytest.raises(DataError, match="1 changed image cannot be used"):
        resume(run.folder, where=Place(changed=True))


def test_a_run_goes_on_where_its_pictures_lie_now(stopped, work, tmp_path):
    data, run = work
    moved = data.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"were in .* vitrail train PLACE --resume"):
        resume(run.folder, more=1)
    with pytest.raises(DataError, match="No image of the run is in"):
        resume(run.folder, more=1, where=Place(str(tmp_path / "cache")))
    resume(run.folder, more=1, where=Place(str(moved)))
    assert run.root() == moved.resolve()
    unmoved = Run(shutil.copytree(stopped[1].folder, tmp_path / "unmoved"))
    resume(unmoved.folder, more=1)
    one, two = load_file(run.state_path), load_file(unmoved.state_path)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert evaluate_run(str(run.folder)).report["notes"] == []


def test_another_copy_is_looked_at_whatever_its_age(work, tmp_path):
    data, run = work
    aside = shutil.copytree(data, tmp_path / "copy" / "my digits")
    row = run.manifest(aside).rows(VAL)[0]
    other(aside / row.path)
    for file in aside.rglob("*.png"):
        os.utime(file, (1, 1))
    with pytest.raises(DataError, match="1 changed"):
        resume(run.folder, more=1, where=Place(str(aside.parent)))  # its folder's name is known again


def test_eval_leaves_out_what_is_no_longer_of_the_run(work):
    data, run = work
    tests = run.manifest(data).rows(TEST)
    whole = evaluate_run(str(run.folder)).report
    other(data / tests[0].path)
    (data / tests[1].path).unlink()
    report = evaluate_run(str(run.folder)).report
    which = f"1 changed ({tests[0].id}), 1 missing ({tests[1].id})"
    note = f"2 of {len(tests)} images are no longer what the run saw: {which}"
    assert report["notes"] == [f"{note}: left out of the score."]
    assert report["test"]["pictures"] == whole["test"]["pictures"] - 2
    assert report["data"] == whole["data"]
    for row in tests:
        (data / row.path).unlink(missing_ok=True)
    with pytest.raises(DataError, match=f"score them as new images: vitrail eval '{run.folder}'"):
        own_tests(run)


def test_the_report_of_a_training_leaves_them_out_too(stopped, work):
    data, run = work
    tests = run.manifest(data).rows(TEST)

    def change(event):
        if event.kind == "score":
            other(data / tests[0].path)

    resume(run.folder, more=1, listeners=[change])
    report = json.loads(run.report_path.read_text())
    assert tests[0].id in report["left_out"]
    assert report["test"]["pictures"] == len(tests) - 1


def test_proofs_and_pages_take_no_other_picture(work):
    data, run = work
    rows = run.manifest(data).rows(VAL)
    steps = Predictor(run.folder).preprocess
    other(data / rows[0].path)
    readers = readers_of(run, data, (VAL,), steps, 100)
    assert len(readers) == len(rows)
    assert len(usable(readers)) == len(rows) - 1
    assert len(usable(readers_of(run, data, (VAL,), steps, 100, unchanged=False))) == len(rows)
    album = Album(data)
    assert album.thumb(rows[0]) is None
    assert album.thumb(rows[1]) is not None
    assert album.missing == 1
    with pytest.raises(DataError, match="no longer the image"):
        load_unchanged(data, rows[0])


def test_what_was_not_touched_is_not_read(work, monkeypatch):
    data, run = work
    rows = run.manifest(data).rows()
    read = []
    monkeypatch.setattr(changed_images, "row_hash", lambda root, path, part: read.append(path) or "other")
    assert find_changes(rows, data, since=time.time() + 1000).ids() == set()
    assert read == []
    found = find_changes(rows, data, since=time.time() - 1000)
    assert len(read) == len(rows) == len(found.changed)


def test_a_look_holds_for_the_place_where_it_was(stopped):
    data, run = stopped
    began = last_look(run, data)
    started = next(one for one in run.history() if one["event"] == "started")
    assert began is not None
    assert began <= started["time"]
    assert last_look(run, data.parent) is None


def test_pictures_inside_archives_are_compared(stopped, tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    files = sorted(stopped[0].rglob("*.png"))

    def pack(spoilt: int) -> None:
        with zipfile.ZipFile(tmp_path / "digits.zip", "w") as packed:
            for i, file in enumerate(files):
                if i == spoilt + 1:
                    continue
                content = file.read_bytes() if i != spoilt else files[0].read_bytes()
                packed.writestr(file.relative_to(stopped[0]).as_posix(), content)

    pack(spoilt=-2)
    manifest = prepare(tmp_path / "digits.zip").manifest
    assert find_changes(manifest.rows(), manifest.root) == changed_images.Changes()
    pack(spoilt=7)
    found = find_changes(manifest.rows(), manifest.root)
    assert (len(found.changed), len(found.missing)) == (1, 1)
