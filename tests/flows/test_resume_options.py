"""What may be said when going on with a run."""

from __future__ import annotations

import json
import shutil

from vitrail.data.manifest import TEST
from vitrail.runs.run import Run


def test_other_options_with_resume_are_wrong_usage(trained, vitrail):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    done = vitrail("train", "--resume", trained, "--lr", "5", "--model", "resnet10t")
    assert done.returncode == 2
    assert "--model, --lr cannot be used with --resume" in done.stderr
    assert "recipe.yaml" in done.stderr
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_a_run_is_told_where_its_pictures_lie_now(trained, digits, vitrail, tmp_path):
    run, moved = shutil.copytree(trained, tmp_path / "run"), shutil.copytree(digits, tmp_path / "my digits")
    done = vitrail("train", moved, "--resume", run)
    assert done.returncode == 0, done.stderr
    row = Run(run).manifest(moved).rows(TEST)[0]
    (moved / row.path).write_bytes(next((digits / "0").iterdir()).read_bytes())
    told = vitrail("eval", run)
    assert told.returncode == 0, told.stderr
    assert f"1 changed ({row.id}): left out of the score." in told.stderr
    stopped = vitrail("train", "--resume", run, "--epochs", "1")
    assert stopped.returncode == 1
    assert f"vitrail train --resume {run} --epochs 1 --changed" in stopped.stderr
    wrong = vitrail("train", run / "state", "--resume", run, "--dry-run")
    assert wrong.returncode == 1
    assert "No image of the run is in" in wrong.stderr
    assert vitrail("train", digits, "--changed").returncode == 2
    gone = vitrail("train", "--resume", trained / "nosuch")
    assert gone.stderr.endswith("nosuch does not exist. Name a run folder.\n")


def test_a_dry_run_of_a_resume_says_what_is_left_and_writes_nothing(trained, vitrail):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    done = vitrail("train", "--resume", trained, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "is finished" in done.stdout
    more = json.loads(vitrail("train", "--resume", trained, "--dry-run", "--epochs", "3", "--json").stdout)
    assert more["steps"] == 3 * 3
    assert more["seconds_a_step"] > 0
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_a_dry_run_says_when_the_time_is_too_short(digits, vitrail, tmp_path):
    words = ["weights=none", "model=vit_digits", "--batch", "100", "--dry-run"]
    done = vitrail("train", digits, *words, "--time", "0.001s")
    assert done.returncode == 0, done.stderr
    assert "all training images; the requested batch is 100" in done.stdout
    found = json.loads(vitrail("train", digits, *words, "--time", "0.001s", "--json").stdout)
    assert found["steps"] == 1
    done = vitrail("train", digits, *words[:2], "--batch", "8", "--dry-run", "--time", "0.001s")
    assert "too short for one epoch" in done.stdout
