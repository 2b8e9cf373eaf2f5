"""What is printed to be typed next says what was typed, and can be copied into a shell."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import fields, replace
from itertools import chain, cycle
from pathlib import Path

import pytest
import torch

from vitrail.cli.main import _app, _dashed
from vitrail.cli.train import _ending
from vitrail.cli.verbs import VERBS
from vitrail.core.text import command, span
from vitrail.data.batch import Batch
from vitrail.data.options import LayoutOptions
from vitrail.data.prepare import prepare
from vitrail.runs.train_options import TrainOptions, words_of
from vitrail.training import batch_size_finder
from vitrail.training.batch_size_finder import forecast
from vitrail.training.resolve_recipe import after_draft
from vitrail.training.step_format import StepFormat

PAGES = sorted(Path(batch_size_finder.__file__).parents[1].rglob("*.py"))

REPORT = {
    "run": "runs/my photos",
    "verdict": "fine",
    "model": "vit",
    "draft": True,
    "doubts": 0,
    "gain_from_twice": 0.01,
    "half": 0.9,
    "full_seconds": 1080.0,
    "full_seconds_usual": 1300.0,
}


def typed(text: str) -> tuple[str, TrainOptions]:
    """Return the data and the options that the command line reads from a line in a shell."""
    words = shlex.split(text)
    assert words[:2] == ["vitrail", "train"]
    app, names = _app("train")
    bound = app.parse_args(_dashed(words[2:], names), exit_on_error=False, print_error=False)[1]
    return bound.arguments.get("data", ""), bound.arguments.get("options", TrainOptions())


def everything() -> TrainOptions:
    """Return options of which every one is given, with blanks and signs of the shell where there is text."""
    first = {
        "tune": "full",
        "fit": "pad",
        "augment": "three",
        "loss": "bce",
        "distill": "soft",
        "pool": "mean",
        "over_time": "attention",
    }
    first |= {"balance": "loss", "precision": "bf16", "memory_format": "channels_last"}
    samples = {"str": "a 'b' $c", "int": -3, "float": 0.25, "bool": False}
    kinds = {field.name: str(field.type).split(" | ")[0] for field in fields(TrainOptions)}
    return TrainOptions(**{name: first.get(name, samples.get(kind, "x")) for name, kind in kinds.items()})


def test_options_are_said_again_as_they_were_said():
    options = everything()
    assert all(getattr(options, field.name) is not None for field in fields(options))
    assert typed(command("train", "my photos/", *words_of(options))) == ("my photos/", options)
    assert words_of(TrainOptions()) == []


def test_the_fine_tune_after_a_draft_is_told_with_what_was_typed():
    options = TrainOptions(
        weights="my weights/x.pth", model="vit_b16", task="classify", out="my runs/a", tune="draft"
    )
    lines = _ending(REPORT, "my photos", options)
    text = next(line for line in lines if line.startswith("The full fine-tune"))
    assert "takes 18 min to 22 min here: " in text
    data, again = typed(text.partition(" here: ")[2])
    assert (data, again) == ("my photos", replace(options, tune="full"))
    assert lines[-1] == "next    vitrail predict 'runs/my photos' picture.jpg"


def test_a_recipe_of_the_draft_alone_is_not_for_the_fine_tune():
    assert after_draft(TrainOptions(recipe="draft", imgsz="64")) == TrainOptions(imgsz="64", tune="full")
    assert after_draft(TrainOptions(recipe="finetune")).recipe == "finetune"


def test_a_run_that_was_stopped_is_named_in_quotes():
    report = {"run": "runs/my photos", "verdict": "", "stopped": {"step": 3, "total": 9}}
    lines = _ending(report, "", TrainOptions())
    assert lines[-1].endswith("continue with: vitrail train --resume 'runs/my photos'")


def test_check_says_what_was_said_to_it(digits, vitrail, tmp_path):
    photos = shutil.copytree(digits, tmp_path / "my digits")
    page = tmp_path / "check.html"
    done = vitrail("check", photos, "--layout", "folders", "--task", "classify", "--html", page)
    words = f"vitrail train '{photos}' --layout folders --task classify"
    assert done.stdout.endswith(f"next    {words}\n")
    assert words.replace("'", "&#39;") in page.read_text()
    name = f"0/{next((photos / '0').iterdir()).name}"
    dropped = vitrail("check", photos, "--layout", "folders", "--drop", name)
    assert f"undo    vitrail check '{photos}' --layout folders --undo 1\n" in dropped.stdout
    undone = vitrail(*shlex.split(dropped.stdout.partition("undo    vitrail ")[2].partition("\n")[0]))
    assert undone.returncode == 0, undone.stderr
    assert (
        prepare(photos, LayoutOptions(layout="folders")).command("check")
        == f"vitrail check '{photos}' --layout folders"
    )


def test_every_command_with_a_name_in_it_is_written_in_one_way():
    """A name that is filled into a sentence by hand is not in quotes."""
    by_hand = re.compile(rf"vitrail ({'|'.join(VERBS)})\b[^\"\n]*(?<!`)\{{")
    lines = [(page, line) for page in PAGES for line in page.read_text(encoding="utf-8").splitlines()]
    assert not [f"{page.name}: {line.strip()}" for page, line in lines if by_hand.search(line)]


@pytest.mark.parametrize(
    ("least", "most", "text"),
    [(41.2, 41.4, "about 41 s"), (1080, 1090, "about 18 min"), (1080, 43_200, "18 min to 12 h 0 min")],
)
def test_a_guess_is_told_as_a_range(least, most, text):
    assert span(least, most) == text


def test_a_fine_tune_is_foretold_from_the_quickest_of_several_steps(monkeypatch):
    """Other work takes the machine away for moments, the first step pays for set-up: neither is what training costs."""
    took, asked = chain([50.0], cycle([0.4, 0.8, 0.08, 0.1, 0.2])), []

    def seconds(self, count, form):
        asked.append(count)
        return next(took) if count == 8 else 4.0

    monkeypatch.setattr(batch_size_finder.Trial, "seconds", seconds)
    batch = Batch({"images": torch.zeros(40, 3, 8, 8)}, [0] * 40, ("",) * 40)
    found = forecast(
        torch.nn.Linear(1, 1),
        type("Free", (), {"couples": False}),
        batch,
        torch.device("cpu"),
        StepFormat("float32"),
    )
    assert asked == [8] * 6 + [32] * 2
    assert found == (0.08 / 8, 0.2 / 8)
