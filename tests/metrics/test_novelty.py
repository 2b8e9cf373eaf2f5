"""Mahalanobis distances against scikit-learn and SciPy, the network's module against NumPy, and what is noticed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitrail.evaluate.abstention import Evidence, fit_abstention
from vitrail.metrics.mahalanobis import distances, fit_gaussians, unit
from vitrail.metrics.novelty import Known, Pair, noticed, select

CENTRES = np.random.default_rng(5).normal(size=(7, 13))


def images(count, classes=5, seed=0, spread=0.25):
    """Vectors around one centre a class."""
    draw = np.random.default_rng(seed)
    truth = np.arange(count) % classes
    return CENTRES[truth] + spread * draw.normal(size=(count, 13)), truth


def strange(count, seed=1):
    """Vectors around two other centres."""
    draw = np.random.default_rng(seed)
    return CENTRES[5 + np.arange(count) % 2] + 0.25 * draw.normal(size=(count, 13))


def known(count, seed=0, **more):
    vectors, truth = images(count, seed=seed, **more)
    return Known({"last": vectors, "middle": vectors[:, :11] ** 2}, truth)


def places(vectors):
    return {"last": vectors, "middle": vectors[:, :11] ** 2}


def test_distances_are_those_of_scikit_learn():
    from sklearn.covariance import LedoitWolf

    vectors, truth = images(150)
    others = np.concatenate([images(20, seed=3)[0], strange(20)])
    x, z = unit(vectors), unit(others)
    means = np.stack([x[truth == one].mean(0) for one in range(5)])
    within = LedoitWolf(assume_centered=True).fit(x - means[truth])
    whole = LedoitWolf(assume_centered=True).fit(x - x.mean(0))
    found = distances(fit_gaussians(vectors, truth), others)
    nearest = np.min([within.mahalanobis(z - mean) for mean in means], axis=0)
    assert found.nearest == pytest.approx(nearest, rel=1e-6)
    assert found.whole == pytest.approx(whole.mahalanobis(z - x.mean(0)), rel=1e-6)
    assert found.of(relative=True) == pytest.approx(found.nearest - found.whole)


def test_the_length_of_a_vector_says_nothing():
    vectors, truth = images(90)
    gaussians, others = fit_gaussians(vectors, truth), strange(9)
    assert distances(gaussians, 7 * others).nearest == pytest.approx(distances(gaussians, others).nearest)


@pytest.mark.parametrize("count", [5, 10, 25])
def test_few_images_of_wide_vectors_have_finite_distances(count):
    draw = np.random.default_rng(0)
    gaussians = fit_gaussians(draw.normal(size=(count, 200)), np.arange(count) % 5)
    assert np.isfinite(distances(gaussians, draw.normal(size=(6, 200))).of(relative=True)).all()


def test_unknown_images_are_noticed_and_known_ones_are_not():
    chosen = select(known(300), known(200, seed=2), {"strange": places(strange(60))}, 0.05)
    far = chosen.far["strange"]
    assert far.auroc.value > 0.95
    assert far.share.value > 0.8
    assert (far.known, far.unknown) == (200, 60)
    assert chosen.near.auroc.value > 0.9
    assert chosen.near.auroc.low <= chosen.near.auroc.value <= chosen.near.auroc.high
    assert chosen.near.unknown == 200, "each held-out image is unknown once"


def test_a_place_that_tells_nothing_is_not_chosen():
    def with_noise(one, seed):
        noise = np.random.default_rng(seed).normal(size=(len(one.truth), 11))
        return Known({"last": one.vectors["last"], "middle": noise}, one.truth)

    far = {"strange": {"last": strange(60), "middle": np.random.default_rng(9).normal(size=(60, 11))}}
    train, held = known(300, spread=1.2), known(200, seed=2, spread=1.2)
    chosen = select(with_noise(train, 1), with_noise(held, 2), far, 0.05)
    assert {part.place for part in chosen.detector.parts} == {"last"}


def test_of_two_classes_none_is_left_out():
    chosen = select(known(100, classes=2), known(60, seed=2, classes=2), {}, 0.05)
    assert chosen.near is None
    assert chosen.far == {}


def test_an_auroc_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    draw = np.random.default_rng(0)
    scores, unknown = draw.normal(size=80).round(1), draw.random(80) < 0.3
    found = noticed([Pair(scores, unknown)], 0.05)
    assert found.auroc.value == pytest.approx(roc_auc_score(unknown, scores))
    assert found.unknown == int(unknown.sum())


def test_classes_of_one_held_out_image_have_an_interval_too():
    held = known(200, seed=2)
    rare = np.concatenate([np.flatnonzero(held.truth == 0), [1, 2, 3, 4]])
    few = Known({place: x[rare] for place, x in held.vectors.items()}, held.truth[rare])
    found = select(known(300), few, {}, 0.05).near
    assert 0 <= found.auroc.low <= found.auroc.value <= found.auroc.high <= 1


@pytest.fixture(scope="module")
def fitted():
    far = {"strange": places(strange(60))}
    return fit_abstention(Evidence(known(300), known(200, seed=2), far, [[0.1, 0.2]] * 5))


def test_the_network_computes_the_scores_that_the_limit_is_from(fitted):
    held = known(200, seed=2)
    vectors = {place: torch.from_numpy(x).float() for place, x in held.vectors.items()}
    scores = fitted.novelty(vectors)["novelty"]
    assert sorted(scores.tolist()) == pytest.approx(fitted.abstention.novelty, abs=1e-3)


def test_no_vector_of_an_image_is_kept(fitted):
    """Means and covariances only: as many numbers for 300 images as for 150."""
    far = {"strange": places(strange(60))}
    fewer = fit_abstention(Evidence(known(150), known(200, seed=2), far, [[0.1]] * 5))
    assert fewer.abstention.parts == fitted.abstention.parts
    shapes = [
        {name: tuple(x.shape) for name, x in one.novelty.state_dict().items()} for one in (fitted, fewer)
    ]
    assert shapes[0] == shapes[1]
    train = torch.from_numpy(unit(known(300).vectors["last"])).float()
    for tensor in fitted.novelty.state_dict().values():
        if tensor.ndim == 2 and tensor.shape[1] == train.shape[1]:
            assert not any(torch.isclose(tensor, row, atol=1e-4).all(1).any() for row in train)


def test_too_few_images_get_the_reason_and_no_score():
    found = fit_abstention(Evidence(known(100), known(18, seed=2), {}, [[0.1]] * 5))
    assert found.novelty is None
    assert found.abstention.parts == ()
    assert "18 validation images (groups count once) are too few" in found.abstention.reason


def test_a_network_that_sees_no_difference_gets_the_reason():
    train = known(100)
    flat = Known({"last": np.ones((100, 13)) + 1e-7 * train.vectors["last"]}, train.truth)
    found = fit_abstention(Evidence(flat, known(40, seed=2), {}, [[0.1]] * 5))
    assert found.novelty is None
    assert "the same features for every image" in found.abstention.reason


def test_the_same_images_give_the_same_fit(fitted):
    far = {"strange": places(strange(60))}
    again = fit_abstention(Evidence(known(300), known(200, seed=2), far, [[0.1, 0.2]] * 5))
    assert again.abstention == fitted.abstention
    for name, tensor in again.novelty.state_dict().items():
        assert torch.equal(tensor, fitted.novelty.state_dict()[name])
