"""A model measured: the same on every call, never better under a stronger attack, clear where it cannot be."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from vitrail.core.catalog import load
from vitrail.core.errors import DataError, SettingError
from vitrail.data.batch import images_only
from vitrail.data.manifest import TEST, Row
from vitrail.data.preprocess import Preprocess
from vitrail.data.truth import Truth
from vitrail.evaluate.collect_answers import evaluate
from vitrail.infer.predictor import Predictor
from vitrail.models.factory import create_encoder
from vitrail.robustness.attack_target import ModelTarget, unit_pixels
from vitrail.robustness.attacks import PGDSettings
from vitrail.robustness.corruptions import KINDS
from vitrail.robustness.cost import cost_of, gradients
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
    RobustnessSettings,
    batches_of,
    grid_of,
    measure,
    sample_of,
)
from vitrail.robustness.salient_patches import saliency
from vitrail.runs.network import build_network
from vitrail.tasks.multilabel.task import MultiLabel
from vitrail.tasks.segment.task import Segment

SETTINGS = RobustnessSettings((0.5, 1.5, 20.0), attacked=14, pgd=PGDSettings(5, 2))


@pytest.fixture(scope="module")
def measured(vit):
    return measure(vit.predictor, sample_of(vit.rows, 23), vit.root, SETTINGS)


def test_everything_is_measured_with_its_number_of_images(measured):
    assert len(measured.rows) == 23
    assert measured.kinds(CORRUPTED) == list(KINDS)
    assert measured.strengths(CORRUPTED) == [1, 2, 3]
    assert measured.kinds(DROPPED) == [RANDOM, SALIENT]
    assert measured.strengths(DROPPED) == [0.25, 0.5, 0.75]
    assert measured.strengths(SHUFFLED) == [2, 4, 8]
    assert measured.kinds(ATTACKED) == [FGSM, PGD]
    sizes = {one.category == ATTACKED: len(right) for one, right in measured.right.items()}
    assert sizes == {False: 23, True: 14}


def test_unchanged_images_have_the_score_of_the_evaluation(vit, measured):
    evaluation = evaluate(vit.predictor, measured.rows, vit.root)
    np.testing.assert_array_equal(measured.right[UNCHANGED], evaluation.per_image()["right"])
    assert measured.right[UNCHANGED].mean() > 0.6


def test_a_second_measurement_and_other_batches_say_the_same(vit, measured, monkeypatch):
    monkeypatch.setattr("vitrail.robustness.measurement.BATCH", 5)
    again = measure(vit.predictor, measured.rows, vit.root, SETTINGS)
    assert again.right.keys() == measured.right.keys()
    for one, right in measured.right.items():
        np.testing.assert_array_equal(again.right[one], right, err_msg=str(one))
    for epsilon, counts in measured.lasting.items():
        np.testing.assert_array_equal(again.lasting[epsilon], counts)


def test_stronger_attacks_and_more_steps_never_help_the_defender(measured):
    clean = measured.right[UNCHANGED][:14]
    left = [clean, *(measured.right[Disturbance(ATTACKED, PGD, epsilon)] for epsilon in SETTINGS.epsilons)]
    for weaker, stronger in pairwise(left):
        assert (stronger <= weaker).all()
    assert left[-1].sum() < clean.sum()
    for epsilon, counts in measured.lasting.items():
        assert len(counts) == 6
        assert (np.diff(counts) <= 0).all()
        assert counts[-1] == measured.right[Disturbance(ATTACKED, PGD, epsilon)].sum()
    for epsilon in SETTINGS.epsilons:
        assert (measured.right[Disturbance(ATTACKED, FGSM, epsilon)] <= clean).all()


def test_missing_patches_cost_something(measured):
    shares = [measured.right[Disturbance(DROPPED, RANDOM, share)].mean() for share in (0.25, 0.75)]
    assert measured.right[UNCHANGED].mean() > max(shares)


def test_a_sample_is_drawn_once_and_its_start_is_a_sample_too(vit):
    sample = sample_of(vit.rows, 12)
    assert sample == sample_of(vit.rows, 12)
    assert sample[:7] == sample_of(vit.rows, 7)
    assert len({row.target for row in sample[:12]}) > 2
    assert sorted(sample_of(vit.rows, 999)) == sorted(vit.rows)


def test_a_convolutional_network_shares_the_grid_of_the_other(vit, cnn):
    grid = grid_of([cnn.predictor, vit.predictor])
    assert grid == grid_of([vit.predictor]) == (8, 8) != grid_of([cnn.predictor])
    settings = replace(SETTINGS, grid=grid, attacked=3)
    found = measure(cnn.predictor, sample_of(cnn.rows, 6), cnn.root, settings)
    assert found.kinds(DROPPED) == [RANDOM, SALIENT]
    assert found.grid == (8, 8)


def test_nothing_is_attacked_where_nothing_is_asked_for(vit):
    found = measure(vit.predictor, vit.rows[:3], vit.root, replace(SETTINGS, epsilons=(), attacked=0))
    assert found.strengths(ATTACKED) == []
    words = cost_of(vit.predictor, vit.rows[:3], vit.root, replace(SETTINGS, epsilons=(), attacked=0))
    assert "Attacks" not in words


# The target of attacks


def test_unchanged_pixels_are_exactly_the_inputs_and_gradients_pass_the_normalisation(vit):
    batch = next(batches_of(vit.predictor, vit.rows[:5], vit.root))
    target = ModelTarget(vit.predictor, batch)
    which = torch.arange(5)
    assert torch.equal(target.inputs(target.pixels, which), batch.images)
    torch.testing.assert_close(target.pixels, batch.images * 0.25 + 0.5)
    inputs = batch.images.clone().requires_grad_()
    logits = vit.predictor.network(images_only(inputs).inputs)["logits"]
    (gradient,) = torch.autograd.grad(
        cross_entropy(logits, torch.tensor(batch.truths), reduction="sum"), inputs
    )
    found = target.look(target.pixels, which)
    torch.testing.assert_close(found.gradient, gradient / 0.25)
    assert found.right.tolist() == target.right(target.pixels, which).tolist()
    some = target.look(target.pixels[3:4], torch.tensor([3]))
    torch.testing.assert_close(some.gradient, found.gradient[3:4], rtol=1e-4, atol=1e-6)


def test_gradients_of_few_images_at_a_time_are_the_same(vit, monkeypatch):
    batch = next(batches_of(vit.predictor, vit.rows[:5], vit.root))
    target, which = ModelTarget(vit.predictor, batch), torch.tensor([4, 0, 2])
    whole = target.look(target.pixels[which], which)
    monkeypatch.setattr("vitrail.robustness.attack_target.AT_ONCE", 2 * 32 * 32)
    parts = target.look(target.pixels[which], which)
    torch.testing.assert_close(parts.gradient, whole.gradient, rtol=1e-4, atol=1e-6)
    assert parts.right.tolist() == whole.right.tolist()


def test_an_attack_leaves_the_network_as_it_was(vit):
    before = {name: tensor.clone() for name, tensor in vit.predictor.network.state_dict().items()}
    measure(vit.predictor, vit.rows[:4], vit.root, SETTINGS)
    after = vit.predictor.network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(one.requires_grad or one.grad is not None for one in vit.predictor.network.parameters())
    assert not vit.predictor.network.training


@pytest.mark.parametrize("name", ["vit", "cnn"])
def test_saliency_adds_up_to_what_fading_the_whole_image_costs(name, request):
    model = request.getfixturevalue(name)
    batch = next(batches_of(model.predictor, model.rows[:3], model.root))
    output = model.predictor.run(images_only(batch.images))
    maps = saliency(model.predictor, batch, output, (8, 8))
    faded = model.predictor.run(images_only(batch.images * (1 - 1e-3)))["logits"]
    best = output["logits"].argmax(1, keepdim=True)
    costs = (output["logits"] - faded).gather(1, best)[:, 0] / 1e-3
    sums = torch.stack([one.sum() * 16 for one in maps])  # cells of 4 × 4 pixels
    torch.testing.assert_close(sums, costs, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("name", ["vit", "cnn"])
def test_salient_patches_are_missed_more_than_others(name, request):
    model = request.getfixturevalue(name)
    found = measure(model.predictor, model.rows, model.root, replace(SETTINGS, attacked=0, grid=(8, 8)))
    lost = {
        kind: sum(found.right[Disturbance(DROPPED, kind, share)].sum() for share in (0.25, 0.5))
        for kind in (RANDOM, SALIENT)
    }
    assert lost[SALIENT] < lost[RANDOM]


# Tasks and images that do not fit


def test_the_loss_of_each_image_is_that_of_the_task():
    classes, truths = load("task", "classify")(("a", "b", "c"), {"smoothing": 0.1}), [2, 0]
    logits = torch.tensor([[0.1, 0.2, 3.0], [1.0, -1.0, 0.5]])
    losses = classes.losses({"logits": logits}, truths)
    torch.testing.assert_close(losses, cross_entropy(logits, torch.tensor(truths), reduction="none"))
    several = MultiLabel(("a", "b", "c"))
    losses = several.losses({"logits": logits}, [(0, 2), ()])
    torch.testing.assert_close(losses.mean(), several.loss({"logits": logits}, [(0, 2), ()]).total)
    wrapped = load("task", "elastic")(("a", "b"), {})
    assert wrapped.losses({"logits": logits[:, :2]}, [0, 1]).shape == (2,)


def test_several_labels_an_image_are_attacked_too(rows_of_digits, model_file):
    rows, root = rows_of_digits
    torch.manual_seed(0)
    task = MultiLabel(Truth("classes", tuple("0123")))
    network = build_network(create_encoder("vit_digits", image=(32, 32), settings={"depth": 1}), task).eval()
    steps = Preprocess((32, 32), "squash", 1.0, (0.5,) * 3, (0.25,) * 3)
    predictor = Predictor(model_file("vit_digits", network, task, steps), "cpu")
    found = measure(predictor, rows[:5], root, replace(SETTINGS, attacked=2))
    assert len(found.right[Disturbance(ATTACKED, PGD, 20.0)]) == 2


def test_a_task_without_right_and_wrong_is_refused(model_file, tmp_path):
    task = Segment(Truth("mask", ("ground", "figure")), {"width": 32})
    steps = Preprocess((32, 32), "squash", 1.0, (0.5,) * 3, (0.25,) * 3)
    network = build_network(create_encoder("vit_digits", image=(32, 32), settings={"depth": 1}), task).eval()
    predictor = Predictor(model_file("vit_digits", network, task, steps), "cpu")
    with pytest.raises(SettingError, match=r"The task segment has none.*Leave out --robustness"):
        measure(predictor, [Row("a", "a", split=TEST)], tmp_path, SETTINGS)


def test_images_of_other_values_are_refused_and_none_at_all(model_file, vit, tmp_path):
    task = load("task", "classify")(("a", "b"), {})
    steps = Preprocess((32, 32), "squash", 1.0, (0.5,) * 2, (0.25,) * 2, channels=2)
    encoder = create_encoder("vit_digits", image=(32, 32), channels=2, settings={"depth": 1})
    predictor = Predictor(model_file("vit_digits", build_network(encoder, task).eval(), task, steps), "cpu")
    with pytest.raises(SettingError, match="8 bits"):
        measure(predictor, [Row("a", "a", split=TEST)], tmp_path, SETTINGS)
    with pytest.raises(DataError, match="no image"):
        measure(vit.predictor, [], tmp_path, SETTINGS)
    with pytest.raises(DataError, match=r"gone\.png"):
        measure(vit.predictor, [Row("gone.png", "gone.png", target="1", split=TEST)], tmp_path, SETTINGS)


def test_the_cost_is_told_before(vit):
    words = cost_of(vit.predictor, sample_of(vit.rows, 23), vit.root, SETTINGS)
    assert "23 images: 782 predictions" in words  # 34 each
    assert f"at most {14 * gradients(SETTINGS)} gradients" in words
    assert gradients(SETTINGS) == 1 + 3 * 2 * 5


def test_pixels_are_those_before_normalisation():
    steps = Preprocess((2, 2), "squash", 1.0, (0.2, 0.4, 0.6), (0.1, 0.2, 0.3))
    black, white = (steps.normalise(torch.full((3, 2, 2), value)) for value in (0.0, 255.0))
    torch.testing.assert_close(unit_pixels(black[None], steps), torch.zeros(1, 3, 2, 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(unit_pixels(white[None], steps), torch.ones(1, 3, 2, 2), rtol=0, atol=1e-6)
