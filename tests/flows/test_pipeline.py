"""The walk through a network is the network's own, and the shuffle test tells positions from none."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from vitrail.core.errors import SettingError
from vitrail.data.preprocess import Preprocess
from vitrail.explainers.permutation_test import shuffle_test
from vitrail.explainers.walkthrough import Subject, from_rows, open_subject, patch_rows, trace
from vitrail.explainers.walkthrough_page import page, steps
from vitrail.infer.predictor import Predictor
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network, build_task


def subject(name: str = "vit_s16", **settings: object) -> Subject:
    torch.manual_seed(3)
    small = {"patch": 8, "width": 48, "depth": 3, "heads": 3, **settings}
    encoder = create_encoder(name, image=(24, 40), settings=small)
    labels = tuple("abcde")
    task = build_task("classify", labels, {})
    network = build_network(encoder, task).eval()
    return Subject(name, network, Preprocess.for_size((24, 40)), task, trained=False, answers=False)


@pytest.fixture
def picture() -> Image.Image:
    draw = np.random.default_rng(5)
    return Image.fromarray(draw.integers(0, 256, (31, 53, 3), dtype=np.uint8))


VARIANTS = [{"position": name} for name in ("1d", "1d_patches", "2d", "relative", "none")]


@pytest.mark.parametrize("settings", [*VARIANTS, {"prefix": ()}], ids=str)
def test_the_walk_is_the_networks_own(settings, picture):
    looked = subject(**settings)
    found = trace(looked, picture)
    assert found.way_off < 1e-5
    assert found.projection_off < 1e-5
    n, prefix = 15, len(looked.network.spec.prefix)
    assert (found.grid, found.rows.shape, found.tokens.shape) == ((3, 5), (n, 192), (n, 48))
    assert found.placed.shape == found.final.shape == (n + prefix, 48)
    assert len(found.layers) == len(found.maps) == 3
    assert found.pixels.shape == (3, 24, 40)
    assert bool(found.places.any()) == (looked.network.encoder.config.position not in ("relative", "none"))
    assert len(steps(looked, found)) == 7


@pytest.mark.parametrize("name", ["deit_ti16_distilled", "deit3_s16"])
def test_deit_walks_too(name, picture):
    found = trace(subject(name), picture)
    assert found.way_off < 1e-5


def test_patches_there_and_back():
    images = torch.randn(2, 5, 14, 21)
    rows = patch_rows(images, 7)
    assert torch.equal(rows[1, 4], images[1, :, 7:14, 7:14].flatten())
    assert torch.equal(from_rows(rows, 7, (2, 3)), images)


@pytest.mark.parametrize("position", ["1d", "2d", "relative"])
def test_positions_notice_a_shuffle(position, picture):
    looked = subject(position=position)
    found = shuffle_test(looked, trace(looked, picture).pixels)
    assert found.with_positions.changed
    assert not found.without.changed
    assert found.without.off < 1e-12
    assert sorted(found.pixels.flatten().tolist()) == pytest.approx(
        sorted(trace(looked, picture).pixels.flatten().tolist()), abs=1e-2
    )


def test_a_network_without_positions_never_notices(picture):
    looked = subject(position="none")
    found = shuffle_test(looked, trace(looked, picture).pixels)
    assert not found.with_positions.changed


def test_other_networks_are_refused():
    for name in ("swin_t", "resnet18", "vit_r_ti16"):
        with pytest.raises(SettingError, match="vit_b16"):
            open_subject(name)


def test_the_page_of_a_run(vitrail, trained, digits, tmp_path):
    file = tmp_path / "inside" / "pipeline.html"
    cat = sorted((digits / "2").iterdir())[0]
    done = vitrail("inspect", trained, "--pipeline", cat, "--out", file.parent, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [step["step"] for step in told["steps"]][:3] == ["Picture", "Patches", "One patch as a row"]
    assert told["steps"][1]["shape"] == "64 patches × 3 × 4 × 4"
    assert told["shuffle"]["with positions"]["changed"]
    assert not told["shuffle"]["without positions"]["changed"]
    html = file.read_text()
    assert "The shuffle test" in html
    assert "freshly drawn" not in html
    assert "http" not in html.replace("http-equiv", "")


def test_the_walk_answers_as_the_predictor_does(trained, digits):
    picture = sorted((digits / "2").iterdir())[0]
    found = trace(open_subject(str(trained)), picture)
    assert str(found.answer) == str(Predictor(trained)(picture)[0])


def test_weights_without_a_classifier_do_not_pretend_to_answer(tmp_path, picture):
    for classes in (0, 7):
        theirs = timm.create_model("vit_tiny_patch16_224", num_classes=classes, img_size=64)
        save_file(theirs.state_dict(), path := tmp_path / f"{classes}.safetensors")
        with (
            pytest.warns(UserWarning, match="made for 64 x 64 px, as a square has it"),
            pytest.warns(UserWarning, match="do not state their preprocessing"),
        ):
            looked = open_subject("vit_ti16", str(path))
        found = trace(looked, picture)
        words = page(looked, found, steps(looked, found), shuffle_test(looked, found.pixels), "cat.jpg")
        assert looked.trained
        assert looked.answers == bool(classes)
        assert len(found.logits) == (classes or 1000)
        assert ("The head is freshly drawn" in words) == (not classes)


def test_a_network_by_name_says_that_it_is_untrained(vitrail, digits, tmp_path):
    file = tmp_path / "inside" / "pipeline.html"
    cat = sorted((digits / "2").iterdir())[0]
    done = vitrail("inspect", "--pipeline", cat, "--model", "vit_digits", "--out", file.parent)
    assert done.returncode == 0, done.stderr
    assert "Shuffled, without positions the same answer" in done.stdout
    assert "freshly drawn" in file.read_text()


@pytest.mark.parametrize(
    "words", [(), ("--model", "vit_b16"), ("--pipeline", "cat.jpg"), ("runs/photos", "--weights", "auto")]
)
def test_what_is_missing_is_said(vitrail, words):
    done = vitrail("inspect", *words)
    assert done.returncode == 1
    assert "vitrail inspect --pipeline cat.jpg --model vit_b16" in done.stderr
