"""What a newcomer types wrong: said at once, by the name that was typed, with the way out."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from typing import get_args, get_type_hints

import pytest

import vitrail as package
from vitrail.cli.help import verb_help
from vitrail.cli.verbs import VERBS
from vitrail.core.errors import RunError, UsageError
from vitrail.data.augment import RECIPES
from vitrail.runs.recipe import TrainSettings
from vitrail.runs.run import Run
from vitrail.runs.train_options import TrainOptions
from vitrail.studies.demo import demo
from vitrail.studies.held_out import hold_back, predicted
from vitrail.training.dry_run import dry


@pytest.fixture
def blind(monkeypatch):
    """Nothing may be decoded: whoever looks at an image fails the test."""

    def never(*words, **settings):
        raise AssertionError("the images were looked at before the options")

    monkeypatch.setattr("vitrail.training.fit.prepare", never)


@pytest.mark.parametrize(
    ("words", "named", "way"),
    [
        ("--epochs 0", "--epochs must be more than 0, not 0", "Leave it out"),
        ("--batch 0", "--batch must be more than 0", "Leave it out"),
        ("--imgsz 0", "--imgsz '0'", "like 224"),
        ("--time 5x", "--time '5x'", "like 90s"),
        ("--time 0s", "--time must be more than 0", "Leave it out"),
        ("--lr nan", "--lr must be a finite number", "Leave it out"),
        ("--lr inf", "--lr must be a finite number", "Leave it out"),
        ("--mixup -1", "--mixup must be 0 or more", "Leave it out"),
        ("--val 2", "--val must be less than 0.9", "Leave it out"),
        ("--augment foo", "--augment", "flip_crop"),
        ("--pool foo", "--pool", "cls_mean"),
        ("--device tpu", "'tpu'", "--device auto, cpu, cuda or mps"),
        ("--model vit_s61", "model called 'vit_s61'", "vit_s16"),
        ("--recipe fintune", "recipe called 'fintune'", "finetune"),
        ("--recipe none.yaml", "none.yaml is missing", "that exists"),
        ("--layout foldrs", "--layout called 'foldrs'", "folders"),
        ("--tune draft --lr 5 --epochs 2", "--epochs, --lr have no effect on a draft", "--tune full"),
        ("--task clasify", "task called 'clasify'", "classify"),
        ("--set droput=0.1", "has no 'droput'", "'dropout'"),
        ("--set mixup=-1", "--set mixup must be 0 or more", "Leave it out"),
        ("--tune draft", "--tune draft does not go with --weights none", "from scratch"),
    ],
)
def test_options_are_refused_before_a_picture_is_opened(vitrail, digits, blind, words, named, way):
    for more in ([], ["--dry-run"]):
        done = vitrail("train", digits, "weights=none", *words.split(), *more)
        assert done.returncode == 2, done.stderr
        assert named in done.stderr
        assert way in done.stderr
        assert "setting" not in done.stderr


def test_a_recipe_file_is_read_before_a_picture_is_opened(vitrail, digits, blind, tmp_path):
    (tmp_path / "mine.yaml").write_text("training:\n  epochs: 0\n")
    done = vitrail("train", digits, "--recipe", tmp_path / "mine.yaml")
    assert done.returncode == 2
    assert "mine.yaml: the setting 'training.epochs' must be more than 0, not 0" in done.stderr


def test_python_refuses_the_same(digits, blind):
    with pytest.raises(UsageError, match="--augment must be one of 'none'"):
        package.train(digits, TrainOptions(augment="wild"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="finite"):
        dry(str(digits), TrainOptions(lr=math.inf))


def test_augmentations_are_called_alike_everywhere():
    assert get_args(get_type_hints(TrainSettings)["augment"]) == RECIPES
    assert set(RECIPES) <= set(get_args(get_args(get_type_hints(TrainOptions)["augment"])[0]))


def test_commands_without_words_are_wrong_usage(vitrail, trained):
    assert vitrail("train").returncode == 2
    assert "--resume" in vitrail("train").stderr
    for verb in ("predict", "explain"):
        assert vitrail(verb, trained).returncode == 2


def test_what_is_not_there_is_said_before_torch_is_loaded(tmp_path):
    (tmp_path / "photos").mkdir()
    for words in (
        ["train", "photo"],
        ["train", "--resume", "photo"],
        ["predict", "photo", "a.png"],
        ["explain", "photo", "a.png"],
        ["eval", "photo"],
        ["export", "photo"],
        ["push", "photo", "me/photo"],
    ):
        script = (
            "import sys\nfrom vitrail.cli.main import run\n"
            f"code = run({words!r})\nprint(code, 'torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
        assert done.stdout.strip() == "1 False", done.stderr
        assert "photo does not exist. Did you mean 'photos'?" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "eval digits.onnx", "eval digits.onnx {0}", "explain digits.onnx {0}", "export digits.onnx",
        "bench digits.onnx", "inside digits.onnx {0}", "inside digits.onnx --pipeline {0}",
    ],
)  # fmt: skip
def test_verbs_that_need_the_network_say_so_of_an_exported_file(vitrail, digits, tmp_path, words):
    (tmp_path / "digits.onnx").touch()
    done = vitrail(*(word.format(digits) for word in words.split()), cwd=tmp_path)
    assert done.returncode == 1
    assert "digits.onnx is an exported file. Only vitrail predict and vitrail.load accept it" in done.stderr
    assert "Give the run folder that it was exported from, or its model.safetensors." in done.stderr


def test_names_behind_two_dashes_are_names(vitrail, trained, digits, tmp_path):
    shutil.copy(sorted((digits / "1").iterdir())[0], tmp_path / "--help")
    shutil.copy(sorted((digits / "1").iterdir())[0], tmp_path / "-x.png")
    done = vitrail("predict", trained, "--json", "--", "-x.png", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [one["path"] for one in json.loads(done.stdout)] == ["-x.png", "--help"]
    assert vitrail("predict", trained, "-x.png", "--", cwd=tmp_path).returncode == 0


def test_an_unknown_method_names_all_and_leaves_no_folder(vitrail, trained, digits, tmp_path):
    picture = sorted((digits / "1").iterdir())[0]
    done = vitrail("explain", trained, picture, "--method", "foo", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "page, rollout, relevance, gradcam, occlusion, attention, all" in done.stderr
    words = ["explain", trained, "--method", "rollout", "--no-check"]
    assert vitrail(*words, tmp_path / "gone.png", "--out", tmp_path / "out").returncode == 1
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    done = vitrail(*words, picture, "--out", tmp_path / "file")
    assert done.returncode == 1
    assert "--out" in done.stderr


def test_explain_reads_standard_input(vitrail, trained, digits, tmp_path):
    data = sorted((digits / "1").iterdir())[0].read_bytes()
    words = ["--method", "rollout", "--no-check", "--out", tmp_path / "out"]
    done = vitrail("explain", trained, "-", *words, stdin=data)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "standard-input-rollout.png").is_file()


def test_a_run_itself_can_be_opened(trained, digits):
    run = Run(trained)
    picture = sorted((digits / "1").iterdir())[0]
    assert package.load(run)(picture) == package.load(trained)(picture)
    assert package.explain(run, picture).heat.shape == (8, 8)


def test_help_shows_that_every_option_takes_a_value_and_has_no_holes():
    page = verb_help("train")
    for name in ("tune", "balance", "fit", "augment", "precision", "pool"):
        assert f"--{name} WORD" in page
    assert "cls, mean, cls_mean (both side by side) or attention" in " ".join(page.split())
    for verb in VERBS:
        assert "  " not in verb_help(verb).splitlines()[0], verb


def test_weights_are_listed_by_our_names_too(vitrail):
    listed = json.loads(vitrail("weights", "vit_b16*", "--json").stdout)
    assert {"vit_b16"} <= {one["model"] for one in listed}
    assert all(one["model"].startswith("vit_b16") for one in listed)
    none = vitrail("weights", "vit_b61_nobody")
    assert none.returncode == 1
    assert "no weights called 'vit_b61_nobody'" in none.stderr


def test_devices_are_called_alike_everywhere():
    helps = [verb_help(verb) for verb in VERBS]
    told = [text for text in helps if "--device" in text]
    assert len(told) >= 6
    assert all("auto, cpu, cuda, mps" in text for text in told)


def test_the_demo_refuses_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file"):
        demo(tmp_path / "file", 1.0, print)


def test_pictures_held_back_are_predicted_by_the_verb(trained, digits, tmp_path):
    data = shutil.copytree(digits, tmp_path / "data")
    held = hold_back(data, tmp_path / "new")
    assert [one.name for one in held] == ["is-0.png", "is-1.png", "is-2.png", "is-3.png"]
    assert sum(1 for _ in data.rglob("*.png")) == 76
    found = predicted(trained, tmp_path / "new")
    assert [one.truth for one in found] == ["0", "1", "2", "3"]
    for one in found:
        assert one.label in "0123"
        assert one.line().startswith(f"is-{one.truth}.png")
        assert one.right == (one.label == one.truth)
