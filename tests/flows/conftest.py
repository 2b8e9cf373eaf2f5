"""A run trained once on a few digits, and the command line as a person calls it."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from vitrail.cli.main import run


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


class Done(NamedTuple):
    """What a command left: its exit code and what it printed."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def vitrail(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Done]:
    """Run `vitrail …` through the function that the command calls, with a cache of its own."""
    monkeypatch.setenv("VITRAIL_CACHE", str(cache))

    def call(*words: object, cwd: Path | None = None, stdin: bytes | None = None) -> Done:
        if cwd is not None:
            monkeypatch.chdir(cwd)
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        code = run([str(word) for word in words])
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def digits(some_digits: Callable[[str, int], Path]) -> Path:
    """Twenty images each of four digits."""
    return some_digits("0123", 20)


@pytest.fixture
def pairs(digits: Path, tmp_path: Path) -> Path:
    """Images of two digits side by side, labelled with both; some are blank and labelled with none."""
    draw = np.random.default_rng(0)
    files = [sorted((digits / name).iterdir()) for name in "0123"]
    (tmp_path / "pictures").mkdir()
    with (tmp_path / "labels.csv").open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["path", "label"])
        for number in range(120):
            two = draw.integers(4, size=2)
            halves = [np.asarray(Image.open(files[d][draw.integers(20)]).convert("L")) for d in two]
            name = f"pictures/{number}.png"
            Image.fromarray(np.concatenate(halves, axis=1)).save(tmp_path / name)
            table.writerow([name, "|".join(sorted({str(d) for d in two}))])
    return tmp_path / "labels.csv"


@pytest.fixture(scope="session")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, made by the command as a person calls it: a process of its own."""
    out = tmp_path_factory.mktemp("runs") / "few"
    words = [
        "--model",
        "vit_digits",
        "weights=none",
        "epochs=2",
        "--batch",
        "16",
        "--micro",
        "16",
        "precision=float32",
    ]
    command = [sys.executable, "-W", "error", "-m", "vitrail.cli.main", "train", str(digits), *words]
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "images it never saw" in done.stdout
    return out
