"""Measurements as curves, tables and sentences: every number with its images and its interval."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from vitrail import plots
from vitrail.data.manifest import Row
from vitrail.metrics.intervals import of_groups, wilson
from vitrail.robustness.corruptions import KINDS
from vitrail.robustness.measurement import (
    ATTACKED,
    CORRUPTED,
    DROPPED,
    FGSM,
    PGD,
    RANDOM,
    SALIENT,
    SHUFFLED,
    UNCHANGED,
    Disturbance,
    Measured,
)
from vitrail.robustness.options import RobustnessOptions
from vitrail.robustness.sections import HEADINGS, attack_notes, interval, is_robustness, result_of, summary
from vitrail.studies.compare.robustness import sentences
from vitrail.tasks.result import Curve, Number, TableSection
from vitrail.tasks.result_file import result_from_dict, result_to_dict

IMAGES = 40


def made(share=0.5, attacked=20, group=""):
    """Return a measurement in which the first `share` of the images is right under everything but attacks."""
    rows = tuple(Row(str(i), str(i), target="a", group=group and f"{group}{i // 4}") for i in range(IMAGES))
    right = np.arange(IMAGES) < share * IMAGES
    found = {UNCHANGED: np.ones(IMAGES, bool)}
    found |= {Disturbance(CORRUPTED, kind, s): right for kind in KINDS for s in (1, 2, 3)}
    found |= {Disturbance(DROPPED, kind, s): right for kind in (RANDOM, SALIENT) for s in (0.25, 0.5, 0.75)}
    found |= {Disturbance(SHUFFLED, "pieces", pieces): right for pieces in (2, 4, 8)}
    if attacked:
        found |= {Disturbance(ATTACKED, FGSM, e): right[:attacked] for e in (1.0, 4.0)}
        found |= {Disturbance(ATTACKED, PGD, e): right[:attacked] & (e < 4) for e in (1.0, 4.0)}
    left = {1.0: np.array([20, 20, 20, 20, 20]), 4.0: np.array([20, 9, 3, 1, 0])} if attacked else {}
    return Measured(rows, found, left, (8, 8))


def test_a_result_holds_every_number_with_its_images_and_its_interval():
    result = result_of({"": made()}, "40 of 99 test images, drawn at random")
    assert [type(one) for one in result.sections] == [Curve, TableSection] * 4 + [Curve]
    assert all(is_robustness(one) for one in result.sections)
    assert not is_robustness(TableSection("Class by class", result.tables[0]))
    table = result.tables[0]
    assert [row[0] for row in table.rows] == list(KINDS)
    cells = [
        cell for table in result.tables for row in table.rows for cell in row if isinstance(cell, Number)
    ]
    assert all(cell.low is not None and cell.high is not None for cell in cells)
    half = wilson(20, 40)
    assert table.rows[0][1] == Number.of(half.to_dict())
    assert "40 images" in result.sections[0].note
    assert "20 images" in result.sections[6].note
    assert "8 × 8" in result.sections[2].note
    scores = result.details["robustness"]["models"][0]["scores"]
    assert len(scores) == 1 + 24 + 6 + 3 + 4
    assert {one["images"] for one in scores} == {40, 20}
    assert json.loads(json.dumps(result.details)) == result.details
    assert "40 of 99 test images, drawn at random" in result.verdict
    assert "50.0 % (35.2 – 64.8) with corruptions" in result.verdict
    assert "under attacks of 1 of 255, on 20 images" in result.verdict


def test_lines_begin_with_the_images_as_they_are_and_have_bands():
    result = result_of({"": made()}, "40 test images")
    curves = {one.heading: one for one in result.sections if isinstance(one, Curve)}
    corruptions = curves[HEADINGS[CORRUPTED]]
    assert list(corruptions.series) == ["noise", "blur", "light", "lost detail"]
    assert corruptions.series["noise"] == [(0.0, 100.0), (1, 50.0), (2, 50.0), (3, 50.0)]
    assert [x for x, _ in curves[HEADINGS[SHUFFLED]].series[""]] == [1.0, 2, 4, 8]
    assert [x for x, _ in curves[HEADINGS[DROPPED]].series[RANDOM]] == [0.0, 25.0, 50.0, 75.0]
    for curve in curves.values():
        for name, band in curve.bands.items():
            points = curve.series[name]
            assert len(band) == len(points)
            assert all(low <= y <= high for (_, y), (low, high) in zip(points, band, strict=True))
    figure = plots.curves(corruptions.series, "x", "y", corruptions.bands)
    assert len(figure.axes[0].collections) == 4


def test_a_result_is_the_same_after_its_file():
    result = result_of({"": made()}, "40 test images")
    again = result_from_dict(json.loads(json.dumps(result_to_dict(result))))
    for one, other in zip(result.sections, again.sections, strict=True):
        assert type(one) is type(other)
        assert one.heading == other.heading
    first, other = (one.sections[0] for one in (result, again))
    assert {name: [tuple(point) for point in band] for name, band in first.bands.items()} == {
        name: [tuple(point) for point in band] for name, band in other.bands.items()
    }


def test_a_curve_of_an_earlier_version_has_no_bands():
    plain = result_to_dict(result_of({"": made()}, "40 test images"))
    curve = plain["sections"][0]
    curve["values"] = curve["values"][:-1]
    found = result_from_dict(plain).sections[0]
    assert found.bands == {}
    assert plots.curves(found.series, found.x, found.y, found.bands).axes[0].lines


def test_duplicates_count_once():
    alone, grouped = made(), made(group="twins:")
    kinds = summary(alone)["with corruptions"]
    one, other = interval(alone, kinds), interval(grouped, kinds)
    assert one.value == other.value
    assert other.high - other.low > 1.5 * (one.high - one.low)
    assert other == of_groups([1.0] * 20 + [0.0] * 20, [f"g{i // 4}" for i in range(40)])


def test_several_models_share_a_figure_and_a_table():
    result = result_of({"vit": made(0.75), "cnn": made(0.25)}, "40 test images")
    assert [type(one) for one in result.sections] == [Curve, TableSection] * 4
    assert list(result.sections[0].series) == ["vit", "cnn"]
    assert list(result.sections[2].series) == [
        "vit, random",
        "vit, most salient",
        "cnn, random",
        "cnn, most salient",
    ]
    assert [row[:2] for row in result.tables[0].rows[:2]] == [
        ("Gaussian noise", "vit"),
        ("Gaussian noise", "cnn"),
    ]
    assert "vit: " in result.verdict
    assert "cnn: " in result.verdict


def test_what_may_be_said_of_two_models():
    lines = list(sentences({"vit": made(0.9), "cnn": made(0.1)}, 0.01))
    assert len(lines) == 6
    assert lines[0].startswith("As they are: Can't tell whether vit or cnn is better: +0.0 points")
    assert re.match(
        r"With corruptions: vit is better than cnn by 80\.0 points \(\d+\.\d to \d+\.\d\)", lines[1]
    )
    equal = list(sentences({"a": made(0.5), "b": made(0.5)}, 0.01))
    assert all("better by" not in line for line in equal)
    wide = next(sentences({"vit": made(0.9), "cnn": made(0.1)}, 0.01))
    assert wide == lines[0]


def test_attacks_say_where_they_may_have_missed_something():
    notes = attack_notes(made())
    assert notes == ["At 4 of 255 the last 1 steps still fooled 1 image; more may fool more."]
    found = made()
    found.right[Disturbance(ATTACKED, PGD, 1.0)] = np.ones(20, bool)
    found.right[Disturbance(ATTACKED, FGSM, 1.0)] = np.arange(20) > 2
    assert "At 1 of 255 FGSM fools 3 images that PGD does not" in attack_notes(found)[0]
    found.lasting[4.0] = np.array([20, 0, 0, 0, 0])
    found.right[Disturbance(ATTACKED, FGSM, 1.0)] = np.ones(20, bool)
    assert attack_notes(found) == ["The last steps fooled no further image, and FGSM none that PGD does not."]


def test_without_attacks_nothing_is_said_of_them():
    result = result_of({"": made(attacked=0)}, "40 test images")
    assert len(result.sections) == 6
    assert "attacks" not in result.verdict


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"epsilons": "1,zwei"}, "--epsilons 1,zwei"),
        ({"epsilons": "0,1"}, "above 0"),
        ({"epsilons": "300"}, "up to 255"),
        ({"epsilons": "nan"}, "up to 255"),
        ({"sample": 0}, "--sample"),
        ({"attacked": -1}, "--attacked"),
    ],
)
def test_options_that_mean_nothing_are_refused(words, message):
    from vitrail.core.errors import SettingError

    with pytest.raises(SettingError, match=re.escape(message)):
        RobustnessOptions(robustness=True, **words).refuse_idle()


def test_options_that_change_nothing_are_refused():
    from vitrail.core.errors import UsageError

    with pytest.raises(UsageError, match="--sample and --attacked changes nothing without --robustness"):
        RobustnessOptions(sample=5, attacked=2).refuse_idle()
    RobustnessOptions().refuse_idle()
    assert RobustnessOptions(epsilons="4,1,1").strengths() == (1.0, 4.0)
