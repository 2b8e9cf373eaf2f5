"""Kill, resume, full disks, interruptions: nothing is lost and nothing differs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vitrail.core.errors import RunError
from vitrail.core.files import append_line, refuse_unwritable, write_text
from vitrail.runs.run import Run

FIXED = ["--precision", "float32", "--micro", "16", "--batch", "16", "--epochs", "4", "--seed", "3"]


def command(digits: Path, model: str, out: Path) -> list[str]:
    options = [
        *FIXED,
        "--model",
        model,
        "--recipe",
        "digits_vit" if model.startswith("vit") else "digits_cnn",
    ]
    return [sys.executable, "-m", "vitrail.cli.main", "train", str(digits), *options, "--out", str(out)]


def finish(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def events(run: Path) -> list[dict]:
    history = run / "history.jsonl"
    lines = history.read_text().splitlines() if history.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def wait_for_step(process: subprocess.Popen, run: Path, step: int) -> None:
    while process.poll() is None:
        if any(event["event"] == "step" and event["step"] >= step for event in events(run)):
            return
        time.sleep(0.01)
    raise AssertionError(f"the training ended before step {step}")


@pytest.mark.parametrize("model", ["vit_digits", "resnet10t"])
def test_killed_and_resumed_is_equal_bit_by_bit(model, digits, tmp_path):
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    finish(command(digits, model, quiet))
    steps = max(event["step"] for event in events(quiet) if event["event"] == "step")
    # The first epoch must be saved before the kill, or there is nothing to resume.
    at = random.SystemRandom().randint(steps // 4 + 1, steps - 1)
    process = subprocess.Popen(
        command(digits, model, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for_step(process, killed, at)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finish([sys.executable, "-m", "vitrail.cli.main", "train", "--resume", str(killed)])
    for name in ("state/last.safetensors", "model.safetensors"):
        first, second = load_file(quiet / name), load_file(killed / name)
        assert first.keys() == second.keys()
        different = [key for key in first if not torch.equal(first[key], second[key])]
        assert not different, f"killed at step {at}: {different[:5]}"
    resumed = [event for event in events(killed) if event["event"] == "resumed"]
    assert resumed[0]["exact"]
    scores = [json.loads((run / "report.json").read_text())["test"]["confusion"] for run in (quiet, killed)]
    assert scores[0] == scores[1]


def test_ctrl_c_stops_keeps_the_best_and_can_go_on(digits, tmp_path):
    out = tmp_path / "run"
    words = command(digits, "vit_digits", out)
    words[words.index("--epochs") + 1] = "200"
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_step(process, out, 9)
    process.send_signal(signal.SIGINT)
    told, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "Stopping" in said
    assert not json.loads((out / "report.json").read_text())["finished"]
    assert "images it never saw" in told
    state = load_file(out / "state" / "last.safetensors")
    assert state
    assert f"continue with: vitrail train --resume {out}" in told


def test_a_full_disk_leaves_the_previous_checkpoint_whole(small_disk):
    run = Run(small_disk)
    run.save_state({"weights": torch.arange(100_000.0)}, {"step": 1})
    with pytest.raises(RunError, match="Free some disk space"):
        run.save_state({"weights": torch.zeros(900_000)}, {"step": 2})
    tensors, counters = run.load_state()
    assert counters == {"step": 1}
    assert torch.equal(tensors["weights"], torch.arange(100_000.0))
    assert [path.name for path in run.state_path.parent.iterdir()] == ["last.safetensors"]


def test_a_place_that_cannot_be_written_is_no_matter_of_room(tmp_path):
    (tmp_path / "here").mkdir()
    for write in (write_text, append_line):
        with pytest.raises(RunError, match="Is a directory") as told:
            write(tmp_path / "here", "x")
        assert "Choose another place" in str(told.value)
        assert "tmp" not in str(told.value).replace(str(tmp_path), "")
    assert [one.name for one in tmp_path.iterdir()] == ["here"]
    with pytest.raises(RunError, match="is a folder"):
        refuse_unwritable(tmp_path / "here")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="Not a directory"):
        refuse_unwritable(tmp_path / "file" / "below.csv")


def test_what_is_written_can_be_read_by_whom_the_user_lets(tmp_path):
    (tmp_path / "usual").touch()
    Run(tmp_path).save_state({"weights": torch.zeros(1)}, {"step": 1})
    assert (tmp_path / "state" / "last.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_full_disk_during_training_is_a_plain_error(digits, small_disk):
    words = command(digits, "vit_digits", small_disk / "run")
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "Free some disk space" in done.stderr
    assert "Traceback" not in done.stderr
    # The model of 1.3 MB fitted, the state beside it did not: what was written is whole.
    assert load_file(small_disk / "run" / "model.safetensors")


def test_resuming_a_finished_run_changes_nothing(trained, vitrail):
    before = (trained / "model.safetensors").read_bytes()
    done = vitrail("train", "--resume", trained)
    assert done.returncode == 0, done.stderr
    assert (trained / "model.safetensors").read_bytes() == before
    assert f"is already finished. For N more epochs: vitrail train --resume {trained}" in done.stderr
