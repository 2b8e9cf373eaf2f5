"""Verdicts keep their promises: intervals against simulated truth, invariances, Holm's correction, missing images."""

from __future__ import annotations

import numpy as np
import pytest

from vitrail.metrics.paired_difference import Difference, holm, more_images, over_folds, over_seeds, verdict


def simulated(rng, images=600, folds=10, gap=0.0, sd=0.0):
    """Return differences of right answers whose mean is `gap`, with a normal effect of `sd` of each fold and side."""
    fold = np.arange(images) % folds
    easy = rng.beta(4, 1, images)
    sides = [
        rng.random(images) < np.clip(easy + half + rng.normal(0, sd, folds)[fold], 0, 1)
        for half in (gap / 2, -gap / 2)
    ]
    return sides[0].astype(float) - sides[1], fold


def measured(differences, fold, units=None):
    units = np.arange(len(differences)) if units is None else units
    return over_folds(differences, fold, units, len(differences) * 9 // 10)


@pytest.mark.parametrize("sd", [0.0, 0.015])
def test_equal_networks_are_rarely_called_different(sd):
    rng = np.random.default_rng(0)
    wrong = [verdict(measured(*simulated(rng, sd=sd))).kind == "better" for _ in range(400)]
    assert 0 < np.mean(wrong) <= 0.085  # 6 % and three standard errors


def test_a_real_difference_is_found_and_named_the_right_way():
    rng = np.random.default_rng(1)
    found = [verdict(measured(*simulated(rng, 1000, gap=0.08))) for _ in range(60)]
    assert np.mean([one.kind == "better" and one.difference > 0 for one in found]) > 0.85


def test_who_stands_first_changes_the_sign_alone():
    differences, fold = simulated(np.random.default_rng(2), gap=0.03, sd=0.02)
    one, other = measured(differences, fold), measured(-differences, fold)
    assert one.value == -other.value
    assert one.variance == other.variance
    assert one.interval() == tuple(-end for end in reversed(other.interval()))


def test_trainings_that_differ_widen_the_interval_by_the_corrected_share():
    rng = np.random.default_rng(3)
    differences, fold = simulated(rng, 2000)
    shifted = differences + rng.normal(0, 0.1, 10)[fold]
    found = measured(shifted, fold)
    assert found.weight == pytest.approx(1 / 10 + 1 / 9)
    assert found.run == pytest.approx(0.01, rel=0.8)
    assert found.variance == pytest.approx(found.image / 2000 + found.run * found.weight)
    assert found.freedom < 20 < measured(differences, fold).freedom


def test_images_of_a_group_are_no_independent_evidence():
    differences, fold = simulated(np.random.default_rng(4), 400)
    four = np.repeat(differences, 4), np.repeat(fold, 4)
    alone = measured(*four)
    tied = measured(*four, units=np.repeat(np.arange(400), 4))
    assert tied.image / alone.image == pytest.approx(4, rel=0.05)


def test_seeds_on_one_split_estimate_both_variances():
    rng = np.random.default_rng(5)
    images, runs, variances = 500, 5, []
    for _ in range(200):
        found = over_seeds(
            rng.normal(0, 0.3, images) + rng.normal(0, 0.02, (runs, 1)) + rng.normal(0, 0.2, (runs, images)),
            np.arange(images),
        )
        variances.append(found.variance)
    truth = 0.09 / images + 0.0004 / runs + 0.04 / (runs * images)
    assert np.mean(variances) == pytest.approx(truth, rel=0.1)


def test_a_single_run_counts_its_images_alone():
    differences = np.array([[1.0, 0.0, 0.0, -1.0, 1.0, 0.0]])
    found = over_seeds(differences, np.arange(6))
    assert found.variance == pytest.approx((differences.var(ddof=1) + 1 / 6) / 6)


@pytest.mark.parametrize(
    ("value", "deviation", "kind", "passes"),
    [
        (0.031, 0.005, "better", True),
        (-0.031, 0.005, "better", True),
        (0.012, 0.005, "better", False),
        (0.001, 0.003, "same", False),
        (0.008, 0.01, "unknown", False),
    ],
)
def test_the_three_forms_of_a_verdict(value, deviation, kind, passes):
    found = verdict(Difference(value, deviation**2 * 1000, 0.0, 1000, 10, 0.2, 990))
    assert (found.kind, found.passes) == (kind, passes)
    assert (found.more is not None) <= (kind == "unknown")


def test_the_images_that_are_missing_bring_the_verdict():
    few = Difference(0.02, 0.12, 0.0, 400, 10, 0.2, 390)
    more = more_images(few)
    assert more is not None
    assert verdict(few).kind == "unknown"
    enough = Difference(0.02, 0.12, 2 * 0.004**2, round(1.01 * (400 + more)), 10, 0.2, 10_000)
    assert verdict(enough).kind == "better"
    short = Difference(0.02, 0.12, 2 * 0.004**2, 400 + more // 2, 10, 0.2, 10_000)
    assert verdict(short).kind == "unknown"


def test_trainings_that_differ_too_much_need_more_rounds_not_more_images():
    found = Difference(0.01, 0.12, 0.002, 1000, 10, 0.2, 9, least=0.002)
    assert verdict(found).kind == "unknown"
    assert more_images(found) is None


def test_holm_asks_most_of_the_clearest_pair():
    levels = holm([0.04, 0.001, 0.02])
    assert levels == pytest.approx([0.95, 1 - 0.05 / 3, 0.975])
    assert holm([0.03, 0.04]) == pytest.approx([0.975, 0.975])  # the first is not rejected, so none is
    assert holm([0.2]) == pytest.approx([0.95])


@pytest.mark.parametrize(("images", "kind"), [(80, "unknown"), (2000, "same")])
def test_equal_answers_to_a_few_images_are_no_proof_of_equality(images, kind):
    found = over_folds(np.zeros(images), np.arange(images) % 5, np.arange(images), images)
    assert (found.value, found.p) == (0.0, 1.0)
    assert found.half() == pytest.approx(1.96 / images, rel=0.02)
    assert verdict(found).kind == kind
