"""Trainings that are stopped, slow, diverging or have too few images: the files that are kept, and the messages."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from vitrail.core.errors import DataError, RunError
from vitrail.core.files import append_line
from vitrail.infer.predictor import Predictor
from vitrail.runs.run import Run
from vitrail.runs.train_options import TrainOptions
from vitrail.training import checkpointing, loop, validation
from vitrail.training.fit import resume, train
from vitrail.training.loop import DivergedError, Event
from vitrail.training.time_budget import Budget


@pytest.fixture(scope="module")
def digits(some_digits):
    """Twenty images of each of three digits; 42 of them are for training."""
    return some_digits("012", 20)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


def options(out, **own):
    given = {"epochs": 2, "batch": 8, "micro": 8, "precision": "float32", "workers": 0, **own}
    return TrainOptions(model="vit_digits", weights="none", mixup=0.4, out=str(out), **given)


class CtrlC:
    """Presses Ctrl-C after a step, and records all events."""

    def __init__(self, step: int) -> None:
        self.step, self.heard = step, []

    def __call__(self, event):
        self.heard.append(event)
        if event.kind == "step" and event.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def same(one, other, name):
    first, second = load_file(one / name), load_file(other / name)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("at", [3, 8])
def test_ctrl_c_in_the_middle_of_an_epoch_loses_no_step(at, digits, tmp_path):
    """Five steps per epoch: one stop before there is a model, one after."""
    quiet, stopped = tmp_path / "quiet", tmp_path / "stopped"
    train(digits, options(quiet))
    run = train(digits, options(stopped), listeners=[CtrlC(at)])
    last = run.history()[-1]
    assert (last["event"], last["step"], last["total"]) == ("stopped", at, 10)
    assert run.load_state()[1]["step"] == at
    if at < 5:
        assert not run.model_path.exists()
        with pytest.raises(RunError, match="--resume"):
            Predictor(run.folder)
    resume(stopped)
    for name in ("state/last.safetensors", "model.safetensors"):
        assert same(quiet, stopped, name)
    taken = [event["step"] for event in run.history() if event["event"] == "step"]
    assert taken == list(range(1, 11))


def test_patience_ends_a_run_and_more_epochs_begin_it_anew(digits, tmp_path, monkeypatch):
    honest = validation.evaluate

    def scored(session, batches, rows):
        found = honest(session, batches, rows)
        scores = found.scores() | {"accuracy": 0.5, "loss": session.epoch}
        found.scores = lambda: scores
        return found

    monkeypatch.setattr(validation, "evaluate", scored)
    run = train(digits, options(tmp_path / "run", epochs=9, patience=2))
    last = run.history()[-1]
    assert (last["event"], last["step"]) == (
        "finished",
        15,
    )  # the first epoch was the best, two came after it
    state = run.state_path.read_bytes()
    resume(run.folder)
    assert run.state_path.read_bytes() == state
    resume(run.folder, more=1)
    last = run.history()[-1]
    assert (last["event"], last["step"], last["total"]) == ("finished", 20, 20)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_vanished_is_named_in_plain_words(digits, tmp_path, workers):
    own = tmp_path / "own"
    shutil.copytree(digits, own)

    def vanish(event):
        if event.kind == "step":
            for path in own.rglob("*.png"):
                path.unlink()

    with pytest.raises(DataError) as caught:
        train(own, options(tmp_path / "run", workers=workers), listeners=[vanish])
    assert "Traceback" not in str(caught.value)
    assert ".png does not exist" in str(caught.value)


def test_a_run_whose_pictures_moved_away_says_so(digits, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(digits, own)
    run = train(own, options(tmp_path / "run"), listeners=[CtrlC(6)])
    own.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="own, which does not exist any more"):
        resume(run.folder)


def test_the_history_goes_on_behind_a_line_that_was_cut_short(tmp_path):
    path = tmp_path / "history.jsonl"
    append_line(path, {"event": "step"})
    with path.open("a") as handle:
        handle.write('{"event": "st')
    append_line(path, {"event": "resumed"})
    assert path.read_text().splitlines() == ['{"event": "step"}', '{"event": "st', '{"event": "resumed"}']
    with pytest.raises(RunError, match="could not be written"):
        append_line(tmp_path, {})


def test_a_run_that_saved_nothing_does_not_send_its_user_to_resume(digits, tmp_path):
    run = train(digits, options(tmp_path / "run", epochs=1))
    run.model_path.unlink()
    run.state_path.unlink()
    with pytest.raises(RunError, match=r"Train again from the start\.$"):
        Predictor(run.folder)


def test_the_state_is_saved_in_the_middle_of_an_epoch(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpointing, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(checkpointing, "SAVING_SHARE", 0)
    seen = []

    def look(event):
        if event.kind == "step" and event.step > 1:
            seen.append(Run(tmp_path / "run").load_state()[1]["step"])

    train(digits, options(tmp_path / "run", epochs=1), listeners=[look])
    assert seen == [1, 2, 3, 4]


def test_a_divergence_in_the_last_step_of_an_epoch_is_not_kept(digits, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(DivergedError, match=r"after step 1 .*nothing was saved in.*--lr") as caught:
        train(digits, options(out, batch=64, lr=1e30, ema=0.0, epochs=3))
    assert len(str(caught.value).split(". ")) == 2
    assert not (out / "model.safetensors").exists()
    assert not (out / "state").exists()


def test_a_validation_loss_that_is_no_number_leaves_the_files_as_they_were(digits, tmp_path, monkeypatch):
    out, written = tmp_path / "run", {}
    names = ("model.safetensors", "state/last.safetensors")
    honest = validation.evaluate

    def scored(session, batches, rows):
        found = honest(session, batches, rows)
        if session.step == 10:
            written.update({name: (out / name).read_bytes() for name in names})
            scores = found.scores() | {"loss": float("nan")}
            found.scores = lambda: scores
        return found

    monkeypatch.setattr(validation, "evaluate", scored)
    with pytest.raises(DivergedError, match=r"after step 10 the validation loss is nan; .* of step 5"):
        train(digits, options(out))
    assert {name: (out / name).read_bytes() for name in names} == written


def test_a_gradient_that_is_no_number_moves_nothing(digits, tmp_path, monkeypatch):
    honest = loop.losses_of_piece

    def broken(session, batch, piece):
        loss = honest(session, batch, piece)
        session.bare.head.linear.weight.register_hook(lambda grad: grad * float("nan"))
        return loss

    monkeypatch.setattr(loop, "losses_of_piece", broken)
    with pytest.raises(DivergedError, match="gradient became nan at step 1"):
        train(digits, options(tmp_path / "run"))


def test_a_slow_machine_gets_fewer_steps(digits, tmp_path, monkeypatch):
    """Steps of 0.2 s fit five times into a second; twenty steps would take four."""
    import time

    honest = loop.take_step

    def slow(session, batch):
        time.sleep(0.2)
        return honest(session, batch)

    monkeypatch.setattr(loop, "take_step", slow)
    run = train(digits, options(tmp_path / "run", epochs=None, time="1s"))
    events = run.history()
    assert max(event["step"] for event in events if event["event"] == "step") <= 6
    assert any(event["event"] == "planned" for event in events)
    assert run.load_state()[1]["fixed"]


def test_the_time_is_planned_from_few_steps_and_shortened_when_late():
    budget = Budget.guessed(100.0, epoch=10, cost=1.0, share=0.0)
    assert budget.more(0.0) == 97
    assert not budget.due(3, 97, elapsed=3.0)
    assert budget.due(3, 97, elapsed=10.0), "a tenth of the time is gone"
    assert budget.due(20, 97, elapsed=9.0)
    budget.fixed = True
    assert not budget.due(50, 97, elapsed=55.0)
    budget.costs.extend([2.0] * 10)
    assert budget.due(50, 97, elapsed=55.0)
    assert budget.more(55.0) == 21


def test_evaluations_count():
    budget = Budget.guessed(100.0, epoch=10, cost=1.0, share=3.0)
    assert budget.scoring == pytest.approx(1.0)
    assert budget.more(0.0) == int(96 / 1.1)


def test_too_few_pictures_say_how_many_are_missing_and_leave_no_folder(digits, tmp_path):
    few = tmp_path / "few"
    for name in "01":
        (few / name).mkdir(parents=True)
        for file in sorted((digits / name).iterdir())[:2]:
            shutil.copy(file, few / name)
    with pytest.raises(DataError, match=r"2 train, 0 val, 2 test.*has 2: add 1"):
        train(few, options(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_curve_holds_each_step_once(tmp_path):
    run = Run(tmp_path)
    for step in (1, 2, 3):
        run.log("step", {"step": step, "loss": 1.0})
    run.log("resumed", {"step": 1})
    for step in (2, 3):
        run.log("step", {"step": step, "loss": 2.0})
    course = [(event["step"], event["loss"]) for event in run.effective_history() if event["event"] == "step"]
    assert course == [(1, 1.0), (2, 2.0), (3, 2.0)]
    assert len(run.history()) == 6


def test_the_time_left_is_never_more_than_the_time_that_was_given():
    from vitrail.training.progress import Teller

    lines = []
    teller = Teller(lines.append)
    score = {"main": "accuracy", "accuracy": 0.5, "epoch": 1.0, "better": True, "best": 0.5, "unit": "%"}
    for seconds in (30.0, None):
        teller(Event("begun", 0, {"total": 1000, "seconds": seconds}))
        teller.began -= 10  # ten seconds a step
        teller(Event("score", 1, score))
    assert lines[0].endswith("20 s left")
    assert lines[1].endswith("2 h 46 min left")


def test_lines_end_where_they_end_and_conversions_are_said(digits, tmp_path):
    from PIL import Image

    from vitrail.training.progress import Teller

    grey = tmp_path / "grey"
    shutil.copytree(digits, grey)
    first = sorted((grey / "0").iterdir())[0]
    Image.open(first).convert("L").convert("CMYK").save(first.with_suffix(".jpg"))
    first.unlink()
    lines = []
    with Teller(lines.append) as teller:
        run = train(grey, options(tmp_path / "run", batch=64, epochs=1), listeners=[teller])
    assert any("CMYK" in line for line in lines)
    assert any("all training images; the requested batch is 64" in line for line in lines)
    assert any("validation accuracy" in line for line in lines)
    assert all(line == line.rstrip() for line in lines)
    again = json.loads(run.report_path.read_text())["reproduce"]
    assert "--precision float32 --micro 8" in again
