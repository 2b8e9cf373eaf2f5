"""The confusion matrix on the page: many classes, a small budget, images that are gone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vitrail.data.manifest import Row
from vitrail.reports.confusion_table import PAIRS, cells
from vitrail.reports.thumbnails import Album
from vitrail.tasks.result import Matrix, Shot


def matrix_of(labels, answers):
    """A matrix of (id, true place, answered place)."""
    counts, shots = np.zeros((len(labels), len(labels)), dtype=int), {}
    for name, true, said in answers:
        counts[true, said] += 1
        shots.setdefault((true, said), []).append(Shot(name, labels[true], labels[said], 0.61, true == said))
    return Matrix("Confusion matrix", labels, tuple(map(tuple, counts.tolist())), shots)


@pytest.fixture
def answers(tmp_path):
    """Answers to 260 images of 40 classes, each fourth wrong."""
    draw = np.random.default_rng(0)
    found = []
    for i in range(260):
        Image.fromarray(draw.integers(0, 255, (9, 7, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        found.append((f"{i}.png", i % 40, i % 40 if i % 4 else (i + 1) % 40))
    return found


LABELS = tuple(f"class {i}" for i in range(40))


@pytest.fixture
def rows(answers):
    return {name: Row(name, name, "", LABELS[true], "test") for name, true, _ in answers}


def test_many_classes_are_a_list_of_mix_ups(answers, rows, tmp_path):
    found = cells(matrix_of(LABELS, answers), rows, Album(tmp_path))
    assert found.rows == ()
    assert 0 < len(found.open) <= PAIRS
    assert not any(cell.right for cell in found.open)
    assert found.open[0].count == max(cell.count for cell in found.open)


def test_the_budget_is_kept_mistakes_come_first_and_what_is_left_out_is_counted(answers, rows, tmp_path):
    few = matrix_of(LABELS[:6], [one for one in answers if one[1] < 5])
    whole, tight = Album(tmp_path), Album(tmp_path, budget=2000)
    every, some = cells(few, rows, whole), cells(few, rows, tight)
    assert whole.missing == 0
    assert tight.missing > 0
    shown = sum(len(cell.pictures) for cell in some.open)
    assert shown + tight.missing == sum(len(cell.pictures) for cell in every.open)
    assert [cell.right for cell in some.open if cell.pictures] == [False] * len(
        [cell for cell in some.open if cell.pictures]
    )
    assert sum(cell.count for row in every.rows for cell in row) == np.sum(few.counts)


def test_a_picture_that_is_gone_is_left_out_and_counted(answers, rows, tmp_path):
    (tmp_path / "4.png").unlink()
    album = Album(tmp_path)
    assert album.thumb(rows["4.png"]) is None
    assert album.missing == 1
    assert album.thumb(rows["5.png"]) is not None
