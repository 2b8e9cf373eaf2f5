"""Fixtures of all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Return the path of a file or folder kept beside the repository, or skip where there is none."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"../shared/{name} is not here: reference data that the repository does not hold")
        return path

    return find


@pytest.fixture(scope="session")
def some_digits(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """Return a new folder with so many images each of these digits."""
    from vitrail.data.builtin import materialise

    whole = materialise("digits", tmp_path_factory.mktemp("data"))

    def copy(names: str, count: int) -> Path:
        few = tmp_path_factory.mktemp("few") / "few digits"
        for name in names:
            (few / name).mkdir(parents=True)
            for file in sorted((whole / name).iterdir())[:count]:
                shutil.copy(file, few / name)
        return few

    return copy


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a network as a training writes it, and return the file."""
    from vitrail.models.factory import describe
    from vitrail.runs.model_file import Header, write_model
    from vitrail.runs.proof import answer

    def write(name, network, task, steps) -> Path:
        header = Header(
            name=name,
            encoder=describe(network.encoder),
            task={"name": task.name, "labels": list(task.labels), "settings": task.settings.model_dump()},
            preprocess=steps.to_dict(),
            proof=answer(network, task, steps),
        )
        path = tmp_path_factory.mktemp("model") / "toy.safetensors"
        write_model(path, network, header)
        return path

    return write


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a 2 MB tmpfs needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)
