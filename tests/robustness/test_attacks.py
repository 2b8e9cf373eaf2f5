"""Attacks: closed forms, the other library's numbers, and what may never happen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from vitrail.robustness.attacks import STEP, Look, PGDSettings, fgsm, pgd, pgd_with_restarts, within_ball


class Toy:
    """A function of pixels that is attacked; `gives_up` False: it counts nothing as fooled, so attacks go on."""

    def __init__(self, function, pixels, truth=None, gives_up=True):
        self.function, self.pixels, self.gives_up, self.looks = function, pixels, gives_up, []
        self.truth = function(pixels).argmax(1) if truth is None else truth

    def look(self, pixels, which):
        self.looks.append(which.tolist())
        changed = pixels.clone().requires_grad_()
        loss = cross_entropy(self.function(changed), self.truth[which], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, changed)
        return Look(gradient, self.right(pixels, which))

    def right(self, pixels, which):
        found = self.function(pixels).argmax(1) == self.truth[which]
        return found if self.gives_up else torch.ones_like(found)


@pytest.fixture
def curved():
    """A small network with tanh, its images and classes, from numbers that NumPy draws."""
    draw = np.random.default_rng(5)
    first = torch.tensor(draw.normal(size=(11, 3 * 5 * 7)) / 4, dtype=torch.float32)
    second = torch.tensor(draw.normal(size=(4, 11)), dtype=torch.float32)
    pixels = torch.tensor(draw.uniform(size=(6, 3, 5, 7)), dtype=torch.float32)
    return lambda x: torch.tanh((x - 0.5).flatten(1) @ first.T) @ second.T, pixels


def everyone(target):
    return torch.ones(len(target.pixels), dtype=torch.bool)


def test_a_linear_target_falls_exactly_where_its_margin_ends():
    """Of a linear classifier an image is robust if and only if its margin is larger than epsilon times the L1 norm."""
    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(3 * 5 * 7, generator=draw, dtype=torch.float64)
    pixels = 0.5 + 0.3 * (torch.rand(97, 3, 5, 7, generator=draw, dtype=torch.float64) - 0.5)
    margins = (pixels - 0.5).flatten(1) @ weights

    def linear(x):
        one = (x - 0.5).flatten(1) @ weights
        return torch.stack([-one, one], 1)

    target = Toy(linear, pixels)
    for epsilon in (0.002, 0.01, 0.05):
        robust = margins.abs() > epsilon * weights.abs().sum()
        if epsilon < 0.05:
            assert 0 < robust.sum() < 97
        assert torch.equal(fgsm(target, [epsilon])[0], robust)
        found = pgd(target, epsilon, pixels, 20, everyone(target))
        assert torch.equal(found.right[-1], robust)


RECORDED = {
    ("FGSM", 0.02, 1): (55.38142, 51.49435, 56.37102, 51.28084, 50.05379, 49.48331),
    ("PGD", 0.02, 7): (55.40892, 51.65521, 56.37779, 51.36964, 49.99629, 49.44581),
    ("PGD", 0.02, 20): (55.38142, 51.71771, 56.45102, 51.41334, 49.95117, 49.43331),
    ("FGSM", 0.1, 1): (54.50857, 50.15164, 56.4337, 49.70902, 50.53052, 49.78903),
    ("PGD", 0.1, 7): (54.26333, 51.3242, 56.52445, 50.55401, 50.43362, 50.18099),
    ("PGD", 0.1, 20): (53.38974, 50.85949, 56.49654, 51.81435, 50.98098, 50.74324),
}
"""Sums of the pixels that adversarial-robustness-toolbox 1.20.1 ends with for `curved`: FastGradientMethod, and
ProjectedGradientDescent with eps_step = eps / 8 and num_random_init = 0."""


@pytest.mark.parametrize(("name", "epsilon", "steps"), RECORDED)
def test_attacks_end_where_those_of_the_other_library_end(curved, name, epsilon, steps):
    target = Toy(*curved, gives_up=False)
    if name == "FGSM":
        which = torch.arange(6)
        step = epsilon * target.look(target.pixels, which).gradient.sign()
        ended = within_ball(target.pixels + step, target.pixels, epsilon)
    else:
        ended = pgd(target, epsilon, target.pixels, steps, everyone(target)).pixels
    sums = ended.double().flatten(1).sum(1)
    np.testing.assert_allclose(sums, RECORDED[name, epsilon, steps], rtol=0, atol=2e-5)


def test_more_steps_and_more_starts_never_help_the_defender(curved):
    function, pixels = curved
    ids = [str(i) for i in range(6)]
    fooled = {}
    for epsilon in (0.004, 0.008, 0.015, 0.03):
        for steps in (0, 1, 3, 10, 20):
            for restarts in (1, 2, 4):
                target = Toy(function, pixels)
                how = PGDSettings(steps, restarts)
                found = pgd_with_restarts(target, epsilon, ids, everyone(target), how, seed=0)
                assert (found.right[1:] <= found.right[:-1]).all()
                fooled[epsilon, steps, restarts] = ~found.right[-1]
    for (epsilon, steps, restarts), fewer in fooled.items():
        for (other, more_steps, more), many in fooled.items():
            if other == epsilon and more_steps >= steps and more >= restarts:
                assert (many | ~fewer).all(), (epsilon, steps, restarts)
    assert 0 < sum(int(one.sum()) for one in fooled.values()) < 6 * len(fooled)


def test_epsilon_zero_changes_nothing(curved):
    target = Toy(*curved, gives_up=False)
    found = pgd_with_restarts(target, 0.0, list("abcdef"), everyone(target), PGDSettings(), seed=0)
    assert torch.equal(found.pixels, target.pixels)
    assert found.right.all()
    assert fgsm(Toy(*curved), [0.0]).all()


@pytest.mark.parametrize("epsilon", [0.01, 0.2, 1.0])
def test_pixels_stay_in_the_ball_and_in_the_range(curved, epsilon):
    target = Toy(*curved, gives_up=False)
    found = pgd_with_restarts(target, epsilon, list("abcdef"), everyone(target), PGDSettings(9, 2), seed=0)
    assert (found.pixels - target.pixels).abs().max() <= epsilon + 1e-7
    assert found.pixels.min() >= 0
    assert found.pixels.max() <= 1
    assert (found.pixels - target.pixels).abs().max() > 0.9 * min(epsilon, 0.5)


def test_pixels_that_resizing_moved_out_of_the_range_are_not_forced_back():
    origin = torch.tensor([-0.02, 0.3, 1.05])
    assert torch.equal(within_ball(origin, origin, 0.0), origin)
    far = within_ball(torch.tensor([-9.0, 9.0, 9.0]), origin, 0.1)
    torch.testing.assert_close(far, torch.tensor([-0.02, 0.4, 1.05]))


def test_what_is_fooled_is_left_alone(curved):
    target = Toy(*curved)
    active = everyone(target)
    active[3] = False
    found = pgd(target, 0.02, target.pixels, 20, active)
    assert not found.right[:, 3].any()
    assert all(3 not in which for which in target.looks)
    assert len(target.looks[0]) == 5
    for turn, which in enumerate(target.looks):
        assert which == (found.right[turn - 1] if turn else active).nonzero()[:, 0].tolist()
    last = target.function(found.pixels).argmax(1) == target.truth
    assert torch.equal(last[active], found.right[-1][active]), (
        "fooled images keep the pixels that fooled them"
    )
    assert torch.equal(found.pixels[3], target.pixels[3])


def test_starts_depend_on_the_image_and_not_on_its_place(curved):
    function, pixels = curved
    how = PGDSettings(2, 3)
    whole = Toy(function, pixels, gives_up=False)
    found = pgd_with_restarts(whole, 0.05, list("abcdef"), everyone(whole), how, seed=0).pixels
    alone = Toy(function, pixels[4:5], gives_up=False)
    other = pgd_with_restarts(alone, 0.05, ["e"], everyone(alone), how, seed=0).pixels
    torch.testing.assert_close(other, found[4:5], rtol=0, atol=1e-6)
    moved = pgd_with_restarts(alone, 0.05, ["x"], everyone(alone), how, seed=0).pixels
    assert not torch.allclose(moved, other, atol=1e-3)
    assert STEP == 1 / 8
