"""The task of a data set depends on the kind of its labels, unless the recipe names one."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vitrail.data.prepare import prepare
from vitrail.runs.train_options import TrainOptions
from vitrail.tasks.multilabel.task import MultiLabel
from vitrail.training.resolve_recipe import plan


class Mine(MultiLabel):
    """A user's own task for several labels."""


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Return the plan for a table with these rows, each 24 times."""
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))

    def make(cells, **options):
        root = tmp_path / "set"
        root.mkdir()
        rng = np.random.default_rng(0)
        lines = ["image,cat,dog"]
        for i in range(24 * len(cells)):
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(root / f"{i}.png")
            lines.append(f"{i}.png,{cells[i % len(cells)]}")
        (root / "labels.csv").write_text("\n".join(lines) + "\n")
        return plan(str(root), prepare(root), TrainOptions(weights="none", **options))

    return make


def test_pictures_without_a_label_leave_the_task_as_it_is(planned):
    made = planned(["1,0", "0,1", "0,0"])
    assert made.recipe.task.name == "classify"
    assert not [reason for reason in made.reasons if "multilabel" in reason]


def test_pictures_of_several_labels_are_learnt_each_as_a_yes_or_a_no(planned):
    made = planned(["1,0", "0,1", "0,0", "1,1"])
    assert made.recipe.task.name == "multilabel"
    assert [reason for reason in made.reasons if "multilabel" in reason]


def test_the_task_that_a_recipe_file_names_is_kept(planned, tmp_path):
    own = f"{__name__}:Mine"
    (tmp_path / "own.yaml").write_text(f"task:\n  name: '{own}'\n")
    made = planned(["1,0", "1,1"], recipe=str(tmp_path / "own.yaml"))
    assert made.recipe.task.name == own
