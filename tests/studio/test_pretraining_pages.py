"""Pretraining in the studio: images without labels are offered it, its run shows what was guessed."""

from __future__ import annotations

import subprocess
import sys
from html import unescape
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from trained_studio import RUN

from vitrail.studio.trainings import Trainings

STEPS = ("--model", "vit_digits_narrow", "--set", "depth=1", "--epochs", "1", "--batch", "8", "--micro", "8")


@pytest.fixture
def flat(workspace):
    folder = workspace.data / "flat"
    folder.mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(folder / f"{number}.png")
    return folder


def test_images_without_labels_can_be_learned_from(client, flat):
    assert "Learn from the images alone" in client.get("/data/flat").text
    page = unescape(client.get("/data/flat/train").text)
    assert "without labels" in page
    assert "--task pretrain" in page
    assert "without labels" not in client.get("/data/flat/train?task=classify").text


def test_the_training_that_is_queued_names_the_task(client, flat):
    studio = client.app.state.studio
    project = studio.images.datasets.all()
    found = next(one for one in project if one.name == "flat")
    from vitrail.studio.projects import Project

    words = Trainings(studio.images.datasets, studio.queue).planned(
        Project("flat", found), {"epochs": "1"}, "pretrain"
    )
    assert len(words) == 1
    assert words[0][0][:2] == ("train", "data/flat")
    assert ("--task", "pretrain") in zip(words[0][0], words[0][0][1:], strict=False)


def test_labelled_images_can_be_learned_from_without_their_labels(client):
    page = client.get(f"/data/{RUN}/train").text
    assert 'href="?task=pretrain"' in page


def test_the_result_shows_what_was_guessed_and_leads_on(client, flat, workspace):
    words = [
        "train",
        "data/flat",
        "--task",
        "pretrain",
        *STEPS,
        "--precision",
        "float32",
        "--out",
        "runs/flat",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "vitrail", *words], cwd=workspace.folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    page = unescape(client.get("/runs/flat/result").text)
    assert "Hidden patches" in page
    assert "weights=runs%2Fflat&tune=full" in page
    assert "Try it on a picture" not in page
    ids = [row.id for row in client.app.state.studio.run("flat").rows().values() if row.split == "test"]
    drawn = client.get("/runs/flat/result/drawn", params={"id": ids[0]})
    assert drawn.status_code == 200
    assert Image.open(BytesIO(drawn.content)).width > 600
    assert "live.png" in client.get("/runs/flat").text
