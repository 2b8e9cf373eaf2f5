"""A run that an earlier version made, before the house of many tasks, and was killed in, opens, predicts, resumes.

`old_run/` was made by commit c47b12e on twenty of each of the digits 0 to 3 and killed after its first epoch of three;
`answers.json` holds what that version answered then, and after it had gone on itself.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from vitrail.infer.predictor import Predictor

HERE = Path(__file__).parent / "old_run"


@pytest.fixture
def old_run(digits: Path, tmp_path: Path) -> Path:
    """A copy whose state says where the images are on this machine."""
    run = shutil.copytree(HERE, tmp_path / "run")
    state = run / "state" / "last.safetensors"
    with safe_open(state, framework="pt") as handle:
        counters = json.loads(handle.metadata()["counters"])
        tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    save_file(tensors, state, metadata={"counters": json.dumps({**counters, "root": str(digits)})})
    return run


def assert_answers(run: Path, digits: Path, when: str) -> None:
    answers = json.loads((HERE / "answers.json").read_text())[when]
    found = Predictor(run)([digits / name for name in answers])
    for prediction, (label, probability) in zip(found, answers.values(), strict=True):
        assert dict(prediction.top(4))[label] == pytest.approx(probability, abs=2e-3)


def test_it_opens_and_predicts(old_run, digits):
    assert_answers(old_run, digits, "opened")


def test_it_resumes_to_the_end_that_its_own_version_came_to(old_run, digits, vitrail):
    done = vitrail("train", "--resume", old_run, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cost"]["steps"] == 9
    assert_answers(old_run, digits, "resumed")


def test_it_is_evaluated_and_explained(old_run, digits, vitrail, tmp_path):
    vitrail("train", "--resume", old_run)
    assert json.loads(vitrail("eval", old_run, "--json").stdout)["test"]["pictures"] == 12
    picture = sorted((digits / "3").iterdir())[0]
    assert vitrail("explain", old_run, picture, "--out", tmp_path / "pages").returncode == 0
    assert list((tmp_path / "pages").iterdir())


def test_it_is_small():
    assert sum(file.stat().st_size for file in HERE.rglob("*") if file.is_file()) < 200_000
