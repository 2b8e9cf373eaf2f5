"""Evaluation of detection: equal to pycocotools, whatever the batches; its report says what it counted."""

from __future__ import annotations

import json
import math
import pickle
import re

import numpy as np
import pytest
from coco_oracle import coco_eval, pictures

from vitrail.data.boxes import make_boxes, make_found
from vitrail.data.manifest import Row
from vitrail.pages import render
from vitrail.reports.confusion_table import cells
from vitrail.tasks.detect.evaluation import BoxEvaluation
from vitrail.tasks.result import Overlays, kept_by
from vitrail.tasks.result_file import result_from_dict, result_to_dict

LABELS = ("ant", "bee", "cow", "dodo")
THRESHOLD = 0.4


def found_in(output, at):
    return output["found"]


def evaluated(truths, found, places=None, threshold=THRESHOLD, temperature=1.0):
    evaluation = BoxEvaluation(LABELS, found_in, threshold, temperature)
    places = range(len(truths)) if places is None else places
    rows = [Row(f"{i:03}.png", f"{i:03}.png", group=f"scene {i // 2}") for i in places]
    for start in range(0, len(rows), 5):
        part = list(places)[start : start + 5]
        evaluation.update(
            rows[start : start + 5], {"found": [found[i] for i in part]}, [truths[i] for i in part], []
        )
    return evaluation


@pytest.fixture(scope="module")
def data():
    return pictures(7, count=40)


@pytest.fixture(scope="module")
def whole(data):
    return evaluated(*data)


def test_the_report_equals_pycocotools(data, whole):
    pytest.importorskip("pycocotools")
    coco = coco_eval(*data, len(LABELS))
    result = whole.result()
    names = ("map", "map50", "map75", "map_small", "map_medium", "map_large")
    told = whole.resample(np.ones(40))
    np.testing.assert_allclose([told[name] for name in names], coco.stats[:6], rtol=0, atol=1e-9)
    assert told["ar"] == pytest.approx(coco.stats[8], abs=1e-9)
    scores = whole.scores()
    assert (scores["map"], scores["map50"]) == pytest.approx(tuple(coco.stats[:2]), abs=1e-9)
    for name, value in zip(names, coco.stats, strict=False):
        assert result.numbers[name].value == pytest.approx(value, abs=1e-6)  # six digits are written
    assert "100 boxes" in result.sections[0].note
    assert result.details["test"]["max_boxes"] == 100


def test_two_halves_are_the_whole(data, whole):
    half, other = evaluated(*data, range(1, 40, 2)), evaluated(*data, range(0, 40, 2))
    half.scores()
    half.merge(pickle.loads(pickle.dumps(other)))
    assert [row.id for row in half.rows] == [row.id for row in whole.rows]
    assert half.scores() == whole.scores()
    assert half.calibrate() == whole.calibrate()
    assert np.array_equal(half.matrix(), whole.matrix())
    for name, values in half.per_image().items():
        assert np.array_equal(values, whole.per_image()[name])


def test_every_image_once_is_the_score(whole):
    once = whole.resample(np.ones(40))
    assert once["map"] == whole.scores()["map"]
    draws = np.array([np.ones(40), np.arange(40) % 3, np.full(40, 2)], float)
    drawn = whole.drawn(draws)
    assert drawn["map"][0] == once["map"]
    assert all(np.isfinite(values).all() for values in drawn.values())
    for name in ("precision", "recall", "f1"):
        assert drawn[name][2] == pytest.approx(once[name])


def test_numbers_tables_and_matrix_agree(whole):
    result, matrix = whole.result(), whole.matrix()
    k = len(LABELS)
    own = np.trace(matrix[:k, :k])
    assert result.numbers["precision"].value == pytest.approx(own / matrix[:, :k].sum(), abs=1e-6)
    assert result.numbers["recall"].value == pytest.approx(own / matrix[:k].sum(), abs=1e-6)
    tallies = whole.tallies()
    assert tallies.sum(0).tolist() == [own, matrix[:k, k].sum(), matrix[k, :k].sum(),
                                       matrix[:k, :k].sum() - own]  # fmt: skip
    for row in result.tables[0].rows:
        i = LABELS.index(row[0])
        assert row[2] == matrix[i].sum()
        assert row[6].value == pytest.approx(matrix[i, i] / matrix[i].sum())
    curve = {one.heading: one for one in result.sections if one.kind == "curve"}["Scores by threshold"]
    assert dict(curve.series["recall"])[THRESHOLD] == pytest.approx(result.numbers["recall"].value, abs=1e-6)
    assert dict(curve.series["precision"])[THRESHOLD] == pytest.approx(
        result.numbers["precision"].value, abs=1e-6
    )


def test_intervals_contain_the_values(whole):
    result = whole.result()
    for number in (result.numbers["map"], result.numbers["f1"], result.tables[0].rows[0][3]):
        assert number.low < number.value < number.high
    headline = whole.headline()
    assert (headline.value, headline.low) == (result.numbers["map"].value, result.numbers["map"].low)
    assert whole.quick_headline
    assert kept_by(whole) == ("map", "%", 1)


def test_a_class_without_truth_is_named(whole):
    result = whole.result()
    assert "No image shows dodo" in result.sections[0].note
    assert [row[0] for row in result.tables[0].rows] == ["ant", "bee", "cow"]
    assert result.details["test"]["absent"] == ["dodo"]
    assert "over 3 classes, on 40" in result.verdict


def test_the_result_is_written_and_read(whole):
    result = whole.result()
    again = result_from_dict(json.loads(json.dumps(result_to_dict(result))))
    assert again.numbers == result.numbers
    assert result_to_dict(again) == result_to_dict(result)
    assert json.loads(json.dumps(result.details)) == result.details


def test_the_matrix_names_what_is_missed_and_invented(whole):
    matrix = next(one for one in whole.result().sections if one.kind == "matrix")
    assert (matrix.labels[-1], matrix.answers[-1]) == ("invented", "missed")
    assert matrix.mistake(0, 4) == "ant missed"
    assert matrix.mistake(4, 1) == "bee invented"
    assert matrix.mistake(0, 1) == "ant taken for bee"
    assert "at least 0.4" in matrix.note
    for (i, j), shots in matrix.shots.items():
        assert 0 < len({shot.id for shot in shots}) == len(shots) <= matrix.counts[i][j]


def test_a_page_shows_the_counts_of_boxes_and_a_card_the_words(whole):
    matrix = next(one for one in whole.result().sections if one.kind == "matrix")
    table = cells(matrix, {row.id: row for row in whole.rows}, NoThumbs())
    assert [[cell.count for cell in row] for row in table.rows] == whole.matrix().tolist()
    assert table.columns[-1] == "missed"
    assert table.rows[0][-1].mistake == "ant missed"
    assert not any(cell.right for i, row in enumerate(table.rows) for j, cell in enumerate(row) if i != j)
    section = {"heading": "x", "matrix": table, "left_out": 0}
    html = render("partials/matrix.html", {"section": section})
    assert "bee invented" in html
    assert "at least 0.4" in html


class NoThumbs:
    def thumb(self, row):
        return None


def test_the_worst_images_come_first(whole):
    worst, best = (one for one in whole.result().sections if isinstance(one, Overlays))
    numbers, names = whole.per_image(), [row.id for row in whole.rows]
    f1 = [numbers["f1"][names.index(shot.id)] for shot in (*worst.shots, *best.shots[::-1])]
    assert f1 == sorted(f1)
    first = names.index(worst.shots[0].id)
    for n, name in re.findall(r"(\d+) (missed|invented)", worst.shots[0].caption):
        assert int(n) == numbers[name][first]


def test_calibration_is_learnt_and_used():
    """Scores that are too sure get a temperature above 1, and the threshold is one of the scores as they are then."""
    rng = np.random.default_rng(0)
    truths, found, scaled = [], [], []
    for _ in range(60):
        x = np.arange(8) * 30.0
        boxes = np.stack([x, x, x + 20, x + 20], 1)
        logit = rng.normal(0.5, 1.5, 8)
        right = rng.random(8) < 1 / (1 + np.exp(-logit))
        truths.append(make_boxes(boxes[right], np.zeros(right.sum())))
        found.append(make_found(boxes, np.zeros(8), 1 / (1 + np.exp(-2 * logit))))
    before = evaluated(truths, found)
    settings = before.calibrate()
    assert settings["temperature"] == pytest.approx(2, rel=0.2)
    scaled = [
        one._replace(scores=1 / (1 + (1 / one.scores - 1) ** (1 / settings["temperature"]))) for one in found
    ]
    after = evaluated(truths, scaled, threshold=settings["threshold"], temperature=settings["temperature"])
    assert after.calibrate() == pytest.approx(settings, rel=1e-3)
    assert after.scores()["map"] == pytest.approx(before.scores()["map"])
    details = after.result().details["calibration"]
    assert details["ece_after"] < details["ece_before"]
    assert after.result().numbers["f1"].value >= max(
        evaluated(truths, scaled, threshold=t).resample(np.ones(60))["f1"] for t in (0.2, 0.4, 0.6, 0.8)
    )


def test_pairs_of_answers_in_one_place_are_counted():
    box = [[10, 10, 50, 50]]
    evaluation = evaluated([make_boxes(box, [0])], [make_found(box * 3, [0, 0, 1], [0.9, 0.8, 0.1])])
    section = evaluation.result().sections[0]
    assert section.line == "1 pair of answers overlaps by more than 0.9"
    assert section.line in section.note


def test_images_without_boxes():
    box = [[10, 10, 50, 50]]
    evaluation = evaluated(
        [make_boxes(), make_boxes(), make_boxes(box, [0])],
        [make_found(), make_found(box, [1], [0.9]), make_found()],
    )
    assert evaluation.per_image()["f1"].tolist() == [1, 0, 0]
    assert evaluation.per_image()["map"].tolist() == [1, 0, 0]
    assert evaluation.scores() == {"map": 0.0, "map50": 0.0, "pictures": 3}
    assert "50 % " not in evaluation.result().verdict


def test_nothing_at_all():
    empty = BoxEvaluation(LABELS, found_in)
    assert empty.scores() == {"map": 0.0, "map50": 0.0, "pictures": 0}
    assert empty.calibrate() == {"temperature": 1.0, "threshold": 0.5}
    assert not empty.quick_headline
    without = evaluated([make_boxes()] * 3, [make_found()] * 3)
    assert not math.isnan(without.scores()["map"])
    assert "nothing can be scored" in without.result().verdict
