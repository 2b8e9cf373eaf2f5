"""New images for the demo: held out before the data check, then predicted with the command line like a user does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitrail.core.errors import RunError
from vitrail.data.labels import natural


@dataclass(frozen=True)
class Fresh:
    """A held-out image, its label, and the prediction of `vitrail predict`."""

    path: Path
    truth: str
    label: str
    probability: float

    @property
    def right(self) -> bool:
        """Whether the prediction is correct."""
        return self.label == self.truth

    def line(self) -> str:
        """Return the row of the demo's table."""
        mark = "" if self.right else "   wrong"
        return f"{self.path.name:<12}{self.label}  {self.probability:6.1%}{mark}"


def hold_back(data: Path, new: Path) -> list[Path]:
    """Move the last image of every class folder to `new`, with its label as name: is-7.png."""
    new.mkdir()
    held = []
    for folder in sorted((one for one in data.iterdir() if one.is_dir()), key=lambda one: natural(one.name)):
        last = max(folder.iterdir(), key=lambda file: natural(file.name))
        held.append(last.rename(new / f"is-{folder.name}{last.suffix}"))
    return held


def vitrail(words: Sequence[str]) -> str:
    """Run a vitrail command in a new process and return its standard output. RunError if it fails."""
    command = [sys.executable, "-m", "vitrail.cli.main", *words]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise RunError(f"`vitrail {' '.join(words)}` failed: {done.stderr.strip()}")
    return done.stdout


def predicted(model: Path, new: Path) -> list[Fresh]:
    """Predict every image of `new` with `vitrail predict MODEL NEW`."""
    found = json.loads(vitrail(["predict", str(model), str(new), "--json"]))
    return [
        Fresh(path, path.stem.removeprefix("is-"), one["label"], one["probability"])
        for one in found
        for path in (Path(one["path"]),)
    ]
