"""Compare a training that was killed with `kill -9` and resumed with the same training without interruption."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import equal

from vitrail.core.errors import RunError
from vitrail.core.text import command
from vitrail.studies.held_out import vitrail


@dataclass(frozen=True)
class Killed:
    """The comparison of a killed and resumed run with an uninterrupted one."""

    step: int
    tensors: int
    same: bool


def killed_and_resumed(folder: Path, say: Callable[[str], None]) -> Killed:
    """Kill a training at a random step, resume it, and compare it with an uninterrupted one."""
    runs = folder / "runs"
    disturbed, quiet = runs / "killed", runs / "undisturbed"
    step = random.Random(time.time_ns()).randint(45, 120)
    _start_and_kill(folder, disturbed, step)
    say(f"  kill -9 at step {step}; resuming from the last saved epoch")
    vitrail(["train", "--resume", str(disturbed)])
    say("  and the same training without interruption")
    vitrail(_short(folder, quiet))
    first, second = (load_file(run / "state" / "last.safetensors") for run in (disturbed, quiet))
    same = first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    say(
        f"  {len(first)} tensors (weights, average, optimiser): {'equal bit by bit' if same else 'NOT equal'}"
    )
    return Killed(step, len(first), same)


def _short(folder: Path, out: Path) -> list[str]:
    # The settings that are measured at the start of a run are fixed, so that both runs compute the same.
    fixed = ["--epochs", "4", "--micro", "32", "--precision", "float32", "--seed", "1"]
    return ["train", str(folder / "data" / "digits"), "--recipe", "digits_vit", *fixed, "--out", str(out)]


def _start_and_kill(folder: Path, out: Path, step: int) -> None:
    words = [sys.executable, "-m", "vitrail.cli.main", *_short(folder, out)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    history = out / "history.jsonl"
    while process.poll() is None:
        if history.exists() and f'"step": {step},' in history.read_text(encoding="utf-8"):
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return
        time.sleep(0.02)
    raise RunError(
        f"The training in {out} ended before step {step}. To see why: {command('train', '--resume', out)}"
    )
