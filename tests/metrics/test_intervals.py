"""Intervals and paired tests against numbers computed elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from vitrail.data.manifest import Row, group_key
from vitrail.metrics.intervals import bootstrap, of_class, of_groups, resampled, units_of, wilson
from vitrail.metrics.mcnemar import Paired


def test_wilson_equals_scipy():
    from scipy.stats import binomtest

    for right, count in [(0, 5), (5, 5), (81, 263), (1, 1000), (499, 500)]:
        expected = binomtest(right, count).proportion_ci(method="wilson")
        found = wilson(right, count)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
        assert found.low <= found.value <= found.high


def test_of_no_pictures_nothing_is_known():
    assert wilson(0, 0) == (0.0, 0.0, 1.0)


def test_coverage_is_what_it_promises():
    draw = np.random.default_rng(0)
    covered = []
    for p in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99):
        for n in (100, 200, 500, 1000, 2000):
            rights = draw.binomial(n, p, 4000)
            held = np.mean([w.low <= p <= w.high for w in (wilson(int(r), n) for r in rights)])
            assert held > 0.91, (p, n)
            covered.append(held)
    assert 0.94 <= np.mean(covered) <= 0.96


def row(number: int, group: str = "") -> str:
    return group_key(Row(f"{number}.png", f"{number}.png", "", "a", "test", group))


def test_a_picture_that_is_there_ten_times_counts_once():
    alone = [row(i) for i in range(40)]
    copied = [row(i, f"twins:{i // 10}") for i in range(400)]
    right = [i % 4 != 0 for i in range(40)]
    many = [right[i // 10] for i in range(400)]
    assert of_groups(many, copied) == pytest.approx(of_groups(right, alone))
    assert of_groups(many, [row(i) for i in range(400)]).low > of_groups(many, copied).low


def test_intervals_over_groups_cover_where_groups_are_answered_as_one():
    draw = np.random.default_rng(1)
    rows = [row(i, f"twins:{i // 4}") for i in range(400)]
    held = 0
    for _ in range(1000):
        right = np.repeat(draw.random(100) < 0.8, 4)
        found = of_groups(right.tolist(), rows)
        held += found.low <= 0.8 <= found.high
    assert 0.92 <= held / 1000 <= 0.98


def test_resampling_draws_whole_groups():
    weights = resampled([row(0, "g"), row(1, "g"), row(2), row(3)])
    assert weights.shape == (1000, 4)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert weights[:, 2].mean() == pytest.approx(1, abs=0.1)
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()


def test_where_nothing_can_be_resampled_the_reason_stands_instead():
    assert bootstrap(0.5, np.linspace(0, 1, 1000), 9).to_dict()["why"] == "fewer than 10 images"
    assert bootstrap(1.0, np.ones(1000), 50).why == "no mistake to resample"
    assert bootstrap(np.nan, np.ones(1000), 50).value is None
    assert bootstrap(0.5, np.linspace(0, 1, 1001), 50) == pytest.approx((0.5, 0.025, 0.975))


def test_a_small_difference_has_no_winner():
    assert "No significant difference" in Paired(4, 6, 0.75).verdict("A", "B")
    assert Paired(2, 30, 1e-5).verdict("A", "B").startswith("B is better than A")


def blocks(draw, count, size=40, p=0.8):
    """Right answers in blocks whose own share differs: Beta with mean p and deviation about 0.12."""
    shares = draw.beta(8 * p, 8 * (1 - p), count)
    return (draw.random((count, size)) < shares[:, None]).ravel().astype(float)


@pytest.mark.parametrize("count", [8, 12, 30])
def test_intervals_over_blocks_cover_where_the_blocks_differ(count):
    draw = np.random.default_rng(count)
    rows = [row(i, f"block {i // 40},0") for i in range(40 * count)]
    wide, held, alone = [], 0, 0
    for _ in range(400):
        right = blocks(draw, count).tolist()
        found, single = of_groups(right, rows), wilson(sum(right), len(right))
        wide.append(found.high - found.low)
        held += found.low <= 0.8 <= found.high
        alone += single.low <= 0.8 <= single.high
    assert held / 400 >= 0.9  # never below, with a standard error of 1.5 points
    assert alone / 400 < 0.75  # as if every image were evidence of its own
    assert np.mean(wide) < 0.9 * (wilson(0.8 * count, count).high - wilson(0.8 * count, count).low)


def test_too_few_blocks_or_no_mistake_are_each_taken_as_one_answer():
    few = [row(i, f"block {i // 10},0") for i in range(40)]
    right = [float(i % 4 != 0) for i in range(40)]
    assert of_groups(right, few) == wilson(3.0, 4.0)
    many = [row(i, f"block {i // 10},0") for i in range(100)]
    assert of_groups([1.0] * 100, many) == wilson(10, 10)
    assert bootstrap(0.5, np.linspace(0, 1, 1000), 50, groups=4).why == "fewer than 5 groups to resample"


def test_only_groups_of_one_origin_change_anything():
    right = [float(i % 3 != 0) for i in range(60)]
    alone, single = [row(i) for i in range(60)], [row(i, f"patient {i}") for i in range(60)]
    assert of_class(right, alone) == of_class(right, single) == of_groups(right, single) == wilson(40, 60)
    twins = [row(i, f"twins:{i // 2}") for i in range(60)]
    assert of_class(right, twins) == wilson(40, 60)
    assert not units_of(twins).whole
    assert units_of([row(0, "a"), row(1, "a")]).whole


def test_few_groups_widen_the_percentiles_as_student_says():
    samples = np.linspace(0, 1, 1001)
    plain, many, few = (bootstrap(0.5, samples, 50, groups) for groups in (None, 2000, 12))
    assert (many.low, many.high) == pytest.approx((plain.low, plain.high), abs=2e-4)
    assert few.low == pytest.approx(0.0107, abs=1e-4)  # Φ(-2.201 · √(12/11))
