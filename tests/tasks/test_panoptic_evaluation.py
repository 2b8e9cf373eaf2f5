"""Evaluation of panoptic maps: its scores, their intervals, and what its report says of things and stuff."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from vitrail.data.boxes import make_boxes
from vitrail.data.instances import Instances, boxes_around, to_runs
from vitrail.data.manifest import Row
from vitrail.data.panoptic import PanopticMap, true_map
from vitrail.metrics.panoptic_quality import SharedPixels, count_segments, pair_segments, panoptic_quality
from vitrail.tasks.panoptic.evaluation import PanopticEvaluation
from vitrail.tasks.result import Overlays, kept_by
from vitrail.tasks.result_file import result_from_dict, result_to_dict

LABELS = ("cell", "sky", "tree", "soil", "never")
THINGS = (True, False, True, False, True)
SIZE, COUNT = (40, 60), 20


def segments_in(output, at):
    return output["found"]


def case(number):
    """Return a true image, and an answer with shifted objects, some of another class and some missed."""
    rng = np.random.default_rng(number)
    many = int(rng.integers(1, 5))
    masks, moved = np.zeros((2, many, *SIZE), bool)
    for place in range(many):
        top, left, tall, wide = *rng.integers(0, 28, 2), *rng.integers(6, 14, 2)
        masks[place, top : top + tall, left : left + wide] = True
        moved[place] = np.roll(masks[place], tuple(rng.integers(-2, 3, 2)), (0, 1))
    kinds = rng.choice([0, 2], many)
    crowd = rng.random(many) < 0.1
    classes = (
        np.where(np.arange(SIZE[0]) < 15 + number % 7, 1, 3)[:, None].repeat(SIZE[1], 1).astype(np.uint8)
    )
    classes[:, 55:] = 255
    ids = np.where(np.arange(SIZE[0]) < 18, many + 1, many + 2)[:, None].repeat(SIZE[1], 1).astype(np.int32)
    for place in np.flatnonzero(rng.random(many) < 0.85):
        ids[moved[place]] = place + 1
    called = np.where(rng.random(many) < 0.8, kinds, 2 - kinds)
    scores = np.append(rng.uniform(0.5, 1, many), [0.9, 0.8])
    found = PanopticMap(ids, np.append(called, [1, 3]), scores)
    runs = to_runs(masks)
    return found, (Instances(make_boxes(boxes_around(runs), kinds // 2, crowd), runs), classes)


@pytest.fixture(scope="module")
def data():
    return [case(number) for number in range(COUNT)]


def evaluated(data, places=None):
    evaluation = PanopticEvaluation(LABELS, THINGS, segments_in)
    places = list(range(len(data)) if places is None else places)
    for start in range(0, len(places), 3):
        part = places[start : start + 3]
        rows = [Row(f"{i:03}.png", f"{i:03}.png", group=f"scene {i // 2}") for i in part]
        evaluation.update(rows, {"found": [data[i][0] for i in part]}, [data[i][1] for i in part], [])
    return evaluation


@pytest.fixture(scope="module")
def whole(data):
    return evaluated(data)


def test_scores_are_means_over_classes_of_all_segments(data, whole):
    sums = np.zeros((5, 4))
    things = np.array(THINGS)
    for found, truth in data:
        true = true_map(*truth, things)
        sums += count_segments(pair_segments(SharedPixels.of(true[:2], found[:2]), true.crowds, 5), 5)
    pq = panoptic_quality(sums).pq
    told = whole.resample(np.ones(COUNT))
    assert told["pq"] == pytest.approx(np.nanmean(pq))
    assert told["pq_things"] == pytest.approx(np.nanmean(pq[things]))
    assert told["pq_stuff"] == pytest.approx(pq[~things].mean())
    assert 0.2 < told["pq"] < 0.95
    scores = whole.scores()
    assert scores["pictures"] == COUNT
    assert {name: scores[name] for name in ("pq", "sq", "rq", "miou")} == {
        name: told[name] for name in ("pq", "sq", "rq", "miou")
    }


def test_mean_iou_is_that_of_pixels(data, whole):
    both, either = np.zeros(5), np.zeros(5)
    for found, truth in data:
        whole_truth = true_map(*truth, np.array(THINGS))
        true, answer = (np.append(9, one.kinds)[one.ids] for one in (whole_truth, found))
        answer = np.where(true == 9, 9, answer)
        for kind in range(5):
            both[kind] += ((true == kind) & (answer == kind)).sum()
            either[kind] += ((true == kind) | (answer == kind)).sum()
    assert whole.scores()["miou"] == pytest.approx((both[:4] / either[:4]).mean())


def test_the_truth_itself_is_perfect(data):
    perfect = [(true_map(*truth, np.array(THINGS))._replace(crowd=None), truth) for _, truth in data]
    evaluation = evaluated(perfect)
    scores = evaluation.scores()
    assert [scores[name] for name in ("pq", "sq", "rq", "miou")] == [1, 1, 1, 1]
    assert not evaluation.tallies()[:, 1:].any()
    assert "PQ below" not in str(evaluation.result().sections)


def test_the_report_tells_things_from_stuff(whole):
    result = whole.result()
    assert kept_by(whole) == ("pq", "%", 1)
    assert next(iter(result.numbers)) == result.main == "pq"
    number = result.numbers["pq"]
    assert number.low < number.value < number.high
    assert whole.quick_headline
    assert whole.headline().low == number.low
    classes, means = result.tables
    assert [row[:2] for row in classes.rows] == [
        ("cell", "thing"), ("sky", "stuff"), ("tree", "thing"), ("soil", "stuff")
    ]  # fmt: skip
    for row in classes.rows:
        assert row[4].value == pytest.approx(row[5].value * row[6].value, abs=1e-6)
    assert [row[:2] for row in means.rows] == [("all", 4), ("things", 2), ("stuff", 2)]
    pq = [row[4].value for row in classes.rows]
    assert [row[2].value for row in means.rows] == pytest.approx(
        [np.mean(pq), (pq[0] + pq[2]) / 2, (pq[1] + pq[3]) / 2], abs=2e-6
    )
    assert "shows never" in result.sections[0].note
    assert result.verdict.startswith(f"PQ {number.text()}")


def test_the_matrix_counts_segments(data, whole):
    matrix = next(one for one in whole.result().sections if one.kind == "matrix")
    counts, tallies = np.array(matrix.counts), whole.tallies().sum(0)
    right, missed, invented, mistaken = tallies.tolist()
    assert np.trace(counts[:5, :5]) == right
    assert (counts[:5, 5].sum(), counts[5, :5].sum()) == (missed, invented)
    assert counts[:5, :5].sum() - right == mistaken > 0
    per_class = whole.counts.sum(0)
    assert per_class[:, 2].sum() == invented + mistaken
    assert per_class[:, 3].sum() == missed + mistaken


def test_the_worst_images_come_first(whole):
    worst, best = (one for one in whole.result().sections if isinstance(one, Overlays))
    numbers, names = whole.per_image(), [row.id for row in whole.rows]
    pq = [numbers["pq"][names.index(shot.id)] for shot in (*worst.shots, *best.shots[::-1])]
    assert pq == sorted(pq)


def test_the_result_is_written_and_read(whole):
    result = whole.result()
    again = result_from_dict(json.loads(json.dumps(result_to_dict(result))))
    assert again.numbers == result.numbers
    assert json.loads(json.dumps(result.details)) == result.details


def test_two_halves_are_the_whole(data, whole):
    half, other = evaluated(data, range(1, COUNT, 2)), evaluated(data, range(0, COUNT, 2))
    half.merge(pickle.loads(pickle.dumps(other)))
    assert [row.id for row in half.rows] == [row.id for row in whole.rows]
    assert half.resample(np.arange(COUNT) % 3) == pytest.approx(whole.resample(np.arange(COUNT) % 3))
    assert np.array_equal(half.tallies(), whole.tallies())
    for name, values in half.per_image().items():
        assert np.array_equal(values, whole.per_image()[name])


def test_a_bootstrap_sample_is_the_score_of_its_images(data, whole):
    counts = np.zeros(COUNT)
    counts[[2, 5, 7]] = 3, 1, 2
    alone = evaluated([data[i] for i in (2, 2, 2, 5, 7, 7)])
    assert whole.resample(counts) == pytest.approx(alone.resample(np.ones(6)), nan_ok=True)


def test_images_without_segments_and_nothing_at_all():
    void = (Instances(make_boxes(), ()), np.full(SIZE, 255, np.uint8))
    nothing = PanopticMap(np.zeros(SIZE, np.int32), np.zeros(0, np.int64), np.zeros(0))
    evaluation = evaluated([(nothing, void)] * 3)
    assert evaluation.per_image()["pq"].tolist() == [1, 1, 1]
    assert "nothing can be scored" in evaluation.result().verdict
    empty = PanopticEvaluation(LABELS, THINGS, segments_in)
    assert empty.scores() == {"pq": 0.0, "sq": 0.0, "rq": 0.0, "miou": 0.0, "pictures": 0}
    assert empty.calibrate() == {}
    assert not empty.quick_headline
