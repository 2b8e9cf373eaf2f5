"""Objects of a clip keep their numbers, by the command line: a table, a video with boxes, JSON, and bad input."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("av", reason="PyAV is not installed")

from vitrail.data.boxes import iou_table
from vitrail.data.preprocess import Preprocess
from vitrail.data.videos import frames_of, write_video
from vitrail.infer.inputs import Source
from vitrail.infer.predictor import Predictor
from vitrail.infer.tracked_clips import track
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network, build_task

SIZE, SIDE = (48, 64), 14


def boxes_at(t: int) -> list[list[int]]:
    """Two squares that pass each other in two lanes; the left one is gone for four frames."""
    return [[2 + 3 * t, 4, 2 + 3 * t + SIDE, 4 + SIDE], [48 - 3 * t, 28, 48 - 3 * t + SIDE, 28 + SIDE]]


def hidden(t: int) -> bool:
    return 6 <= t < 10


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    frames = []
    for t in range(16):
        frame = np.full((*SIZE, 3), 120, np.uint8)
        for i, (left, top, right, bottom) in enumerate(boxes_at(t)):
            if i or not hidden(t):
                frame[top:bottom, max(0, left) : right] = ((210, 60, 50), (40, 80, 210))[i]
        frames.append(frame)
    path = tmp_path_factory.mktemp("clips") / "two squares.mp4"
    write_video(path, frames, 15.0)
    return path


@pytest.fixture(scope="module")
def model(model_file):
    """A detector with random weights: what it finds is the same in every run."""
    torch.manual_seed(0)
    task = build_task("detect", ["disc", "square"], {"width": 32, "hidden": 32, "queries": 4, "layers": 1})
    network = build_network(create_encoder("vit_digits", image=SIZE), task).eval()
    return model_file("vit_digits", network, task, Preprocess.for_size(SIZE))


class Eye(Predictor):
    """A predictor that finds the coloured squares themselves, in place of the network's answers."""

    def predict(self, images, request=None, *, sets=None):
        answers = super().predict(images, request, sets=sets)
        return [
            _squares(one, frame, request.ask.threshold) for one, frame in zip(answers, images, strict=True)
        ]


def _squares(objects, frame, least):
    from dataclasses import replace

    from vitrail.data.boxes import make_found

    found = []
    for kind, channel in ((0, 0), (1, 2)):
        rows, cols = np.nonzero(frame[..., channel].astype(int) - frame[..., 1] > 60)
        if len(rows) > 20:
            found.append(((cols.min(), rows.min(), cols.max() + 1, rows.max() + 1), kind, 0.9))
    assert least < 0.3, "boxes with low scores are asked for, too"
    return replace(objects, found=make_found(*(zip(*found, strict=True) if found else ((), (), ()))))


def test_numbers_follow_the_squares_and_survive_four_hidden_frames(clip, model, tmp_path):
    out = tmp_path / "shown.mp4"
    done = track(Eye(model), Source("clip.mp4", clip), None, out)
    assert not done.error
    assert (done.frames, [one["id"] for one in done.objects()]) == (16, [1, 2])
    assert [one["class"] for one in done.objects()] == ["disc", "square"]
    assert [one["frames"] for one in done.objects()] == [12, 16]
    for row in done.rows:
        true = np.array([boxes_at(row["frame"])[row["id"] - 1]], float)
        true = np.clip(true, 0, [SIZE[1], SIZE[0]] * 2)
        box = np.array([[row[side] for side in ("left", "top", "right", "bottom")]])
        assert iou_table(box, true)[0, 0] > 0.7
        assert row["seconds"] == pytest.approx(row["frame"] / 15, abs=0.002)
    drawn = [frame for _, frame in frames_of(out)]
    assert len(drawn) == 16
    assert drawn[0].shape[0] >= 256


def test_the_command_writes_a_table_a_video_and_json(clip, model, vitrail, tmp_path):
    table, shown = tmp_path / "tracks.csv", tmp_path / "shown"
    done = vitrail(
        "predict", model, clip, "--track", "--threshold", "0.001", "--csv", table, "--out", shown, "--json"
    )
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    assert answer["frames"] == 16
    with table.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == len(answer["boxes"]) > 0
    names = ["path", "frame", "seconds", "id", "class", "score", "left", "top", "right", "bottom", "error"]
    assert list(rows[0]) == names
    assert answer["video"] == (shown / "two squares.tracked.mp4").as_posix()
    assert sum(1 for _ in frames_of(shown / "two squares.tracked.mp4")) == 16


def test_what_cannot_be_followed_is_named_and_the_others_are(clip, model, vitrail, tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "photo.png")
    (tmp_path / "empty.mp4").touch()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:200])
    shutil.copy(clip, tmp_path / "good.mp4")
    names = ["photo.png", "empty.mp4", "cut.mp4", "good.mp4"]
    done = vitrail("predict", model, *(tmp_path / one for one in names), "--track", "--json")
    assert done.returncode == 1
    answers = json.loads(done.stdout)
    assert "is no video by its name" in answers[0]["error"]
    assert all(str(tmp_path / name) in one["error"] for name, one in zip(names[:3], answers, strict=False))
    assert answers[3]["frames"] == 16
    assert "3 of 4 clips could not be read" in done.stderr
    folder = vitrail("predict", model, tmp_path, "--track", "--json")
    assert [Path(one["path"]).name for one in json.loads(folder.stdout)] == [
        "cut.mp4",
        "empty.mp4",
        "good.mp4",
    ]


def test_options_and_models_that_do_not_fit_are_refused(clip, model, trained, vitrail):
    done = vitrail("predict", trained, clip, "--track")
    assert done.returncode == 1
    assert "--track follows the boxes of a detector, and this model was trained for classify" in done.stderr
    for more in (("--tiles", "40"), ("--coco", "x.json")):
        done = vitrail("predict", model, clip, "--track", *more)
        assert done.returncode == 2
        assert f"{more[0]} does not go with --track" in done.stderr
