"""The confusion matrix on the page: many classes, a small budget, pictures that are gone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vitrail.data.manifest import Row
from vitrail.evaluate.scores import Judged, Scores
from vitrail.reports.album import Album
from vitrail.reports.cells import PAIRS, cells
from vitrail.tasks.classify.task import Ranked


@pytest.fixture
def scores(tmp_path):
    """Answers to 260 pictures of 40 classes, each fourth wrong."""
    draw = np.random.default_rng(0)
    labels = tuple(f"class {i}" for i in range(40))
    judged = []
    for i in range(260):
        Image.fromarray(draw.integers(0, 255, (9, 7, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        said = labels[i % 40] if i % 4 else labels[(i + 1) % 40]
        others = tuple(label for label in labels if label != said)
        answer = Ranked((said, *others), (0.61, *([0.01] * 39)))
        judged.append(Judged(Row(f"{i}.png", f"{i}.png", "", labels[i % 40], "test"), answer))
    return Scores(tuple(judged), labels)


def test_many_classes_are_a_list_of_mix_ups(scores, tmp_path):
    found = cells(scores, Album(tmp_path))
    assert found.rows == ()
    assert 0 < len(found.open) <= PAIRS
    assert not any(cell.right for cell in found.open)
    assert found.open[0].count == max(cell.count for cell in found.open)


def test_the_budget_is_kept_mistakes_come_first_and_what_is_left_out_is_counted(scores, tmp_path):
    few = Scores(
        tuple(one for one in scores.judged if one.row.target in scores.labels[:5]), scores.labels[:6]
    )
    for one in few.judged:
        assert one.prediction.label in few.labels
    whole, tight = Album(tmp_path), Album(tmp_path, budget=2000)
    every, some = cells(few, whole), cells(few, tight)
    assert whole.missing == 0
    assert tight.missing > 0
    shown = sum(len(cell.pictures) for cell in some.open)
    assert shown + tight.missing == sum(len(cell.pictures) for cell in every.open)
    assert [cell.right for cell in some.open if cell.pictures] == [False] * len(
        [cell for cell in some.open if cell.pictures]
    )
    assert sum(cell.count for row in every.rows for cell in row) == len(few.judged)


def test_a_picture_that_is_gone_is_left_out_and_counted(scores, tmp_path):
    (tmp_path / "4.png").unlink()
    album = Album(tmp_path)
    assert album.thumb(scores.judged[4].row) is None
    assert album.missing == 1
    assert album.thumb(scores.judged[5].row) is not None
