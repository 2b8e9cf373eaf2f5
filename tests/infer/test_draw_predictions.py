"""Answers as files: where they lie, what they are called, and what is never overwritten."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import NAMES, scene

from vitrail.cli.main import run
from vitrail.core.errors import DataError
from vitrail.data.own_outputs import HEAD, is_figure
from vitrail.data.preprocess import Preprocess
from vitrail.data.truth import Truth
from vitrail.infer.inputs import expand
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network
from vitrail.tasks.segment.task import Segment

STEPS = Preprocess((48, 64), "squash", 1.0, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def street(model_file):
    torch.manual_seed(0)
    task = Segment(Truth("mask", NAMES), {"width": 32})
    encoder = create_encoder("vit_digits", image=(48, 64), settings={"depth": 1})
    return model_file("vit_digits", build_network(encoder, task).eval(), task, STEPS)


def picture(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene(number)[0]).save(path)
    return path.read_bytes()


def asked(capsys, *words):
    code = run(["predict", *map(str, words), "--json"])
    told = capsys.readouterr()
    assert code == 0, told.err
    return json.loads(told.out)


def ours(path):
    return is_figure(path.read_bytes()[:HEAD])


def test_no_picture_that_is_asked_about_is_written_onto(street, tmp_path, capsys):
    folder = tmp_path / "q"
    kept = {name: picture(folder / name, i) for i, name in enumerate(("a.png", "b.png", "b.mask.png"))}
    asked(capsys, street, folder, "--out", folder)
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    drawn = sorted(one.name for one in folder.iterdir() if one.name not in kept)
    assert drawn == [
        "a-2.mask.png", "a-2.png", "b-2.mask.png", "b-2.png", "b.mask-2.mask.png", "b.mask-2.png",
    ]  # fmt: skip
    assert all(ours(folder / name) for name in drawn)


def test_no_file_of_somebody_else_is_overwritten_but_an_older_answer_is(street, tmp_path, capsys):
    picture(tmp_path / "a.jpg")
    theirs = picture(tmp_path / "out" / "a.mask.png", 1)
    for _ in range(2):
        asked(capsys, street, tmp_path / "a.jpg", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "a.mask.png").read_bytes() == theirs
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == [
        "a-2.mask.png",
        "a-2.png",
        "a.mask.png",
    ]


def test_folders_stay_names_never_collide_and_rows_name_the_mask(street, tmp_path, capsys):
    root, out = tmp_path / "in", tmp_path / "out"
    for i, name in enumerate(("a/x.jpg", "b/x.png", "b/x.jpg", "b/x.mask.png")):
        picture(root / name, i)
    found = asked(capsys, street, root, "--out", out, "--csv", tmp_path / "t.csv")
    masks = {one["path"].removeprefix(f"{root}/"): one["mask"] for one in found}
    assert masks["a/x.jpg"] == (out / "a" / "x.mask.png").as_posix()
    assert len(set(masks.values())) == 4
    for name, mask in masks.items():
        with Image.open(mask) as drawn, Image.open(root / name) as image:
            assert (drawn.mode, drawn.size) == ("P", image.size)
    assert len(list(out.rglob("*.png"))) == 8
    rows = (tmp_path / "t.csv").read_text().splitlines()
    assert rows[0] == "path,class,pixels,share,mask,error"
    assert all("mask.png" in row for row in rows[1:])
    assert np.all([found[i]["areas"][0].keys() >= {"class", "pixels"} for i in range(4)])


def test_members_of_archives_lie_below_out_and_never_beside_it(street, tmp_path, capsys):
    data = picture(tmp_path / "x.png")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("a/x.png", data)
        archive.writestr("b/x.png", data)
    found = asked(capsys, street, tmp_path / "in.zip", "--out", tmp_path / "out")
    assert [one["mask"] for one in found] == [
        (tmp_path / "out" / name / "x.mask.png").as_posix() for name in "ab"
    ]


def test_a_folder_of_answers_is_told_as_such(street, tmp_path, capsys):
    picture(tmp_path / "a.jpg")
    asked(capsys, street, tmp_path / "a.jpg", "--out", tmp_path / "out")
    with pytest.raises(DataError, match=r"but 2 figures that vitrail drew: a\.mask\.png, a\.png"):
        list(expand([str(tmp_path / "out")]))


def test_below_a_threshold_pixels_are_void(street, model, tmp_path, capsys):
    picture(tmp_path / "a.jpg")
    found = {
        at: asked(capsys, street, tmp_path / "a.jpg", "--threshold", at)[0]["areas"] for at in ("0", "1")
    }
    pixels = {at: sum(one["pixels"] for one in areas) for at, areas in found.items()}
    assert pixels == {"0": 48 * 64, "1": 0}
    for words, said in (((street, "1.5"), "from 0 to 1"), ((model, "0.5"), "takes no threshold")):
        assert run(["predict", str(words[0]), str(tmp_path / "a.jpg"), "--threshold", words[1]]) == 1
        assert said in capsys.readouterr().err
