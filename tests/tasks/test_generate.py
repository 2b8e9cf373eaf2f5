"""The task of generation: noise by the generator and by the id, losses, scores, made images, the proof."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vitrail.core.errors import DataError, SettingError
from vitrail.data.batch import Batch
from vitrail.data.manifest import Row
from vitrail.data.preprocess import Preprocess
from vitrail.data.truth import Truth
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network
from vitrail.runs.proof import answer
from vitrail.tasks.base import FINGERPRINT, Ask
from vitrail.tasks.generate.evaluation import BOUND, ERROR, LEVEL
from vitrail.tasks.generate.prediction import pixels_of
from vitrail.tasks.generate.sampling import LABEL, NOISE, SPREAD, TIME, Making
from vitrail.tasks.generate.targets import GenerateTargets
from vitrail.tasks.generate.task import CLEAN, NOISY, Drawn, Generate
from vitrail.training.loop import IMAGES, weighed

TINY = {"image": 16, "patch": 4, "width": 32, "depth": 2, "heads": 2, "classes": 3}
CLASSES = ("ant", "bee", "cat")
FEW = Making(5, "ddpm", 1.5, 1.0)


def network_of(task):
    """A network whose final layer and modulations are random: new ones tell nothing."""
    torch.manual_seed(0)
    network = build_network(create_encoder("dit_digits", image=16, settings=TINY), task)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.eval()


def batch(count=3):
    images = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Batch({"images": images}, [i % 3 for i in range(count)], tuple(f"{i}.png" for i in range(count)))


@pytest.fixture
def task():
    return Generate(CLASSES)


def test_level_and_noise_follow_from_the_id_and_not_from_the_batch(task):
    network, images = network_of(task), batch()
    with torch.no_grad():
        whole, part = (task.answer(network, one, Ask()) for one in (images, images.slice(1, 2)))
    assert whole[LEVEL][1] == part[LEVEL][0]
    torch.testing.assert_close(whole[NOISY][1:2], part[NOISY])
    torch.testing.assert_close(whole[NOISE][1:2], part[NOISE])
    assert len(set(whole[LEVEL].tolist())) > 1


def test_the_class_counts_and_an_image_without_one_is_shown_none(task):
    network, images = network_of(task), batch(1)
    with torch.no_grad():
        given, other, none = (
            task.answer(network, Batch(images.inputs, targets, images.ids), Ask())[NOISE]
            for targets in ([0], [1], None)
        )
        drawn = Drawn(torch.tensor([0]), torch.zeros(1, 3, 16, 16), torch.tensor([3]))
        last = task.with_noise(images, drawn)
    assert not torch.equal(given, other)
    assert not torch.equal(given, none)
    assert last.inputs[LABEL].tolist() == [3]


def test_the_training_draws_from_the_generator_it_is_given(task):
    network, images = network_of(task), batch()
    first, again, other = (
        float(task.training_loss(network, images, np.random.default_rng(seed), 0.0).total.detach())
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_classes_are_dropped_as_often_as_is_said():
    seen = []

    class Watch(nn.Module):
        def forward(self, given):
            seen.extend(given[LABEL].tolist())
            zero = given["images"] * 0
            return {NOISE: zero, SPREAD: zero}

    for drop in (0.0, 0.5):
        seen.clear()
        task = Generate(CLASSES, {"drop": drop})
        task.training_loss(Watch(), batch(400), np.random.default_rng(0), 0.0)
        assert seen.count(3) / 400 == pytest.approx(drop, abs=0.06)


def test_the_bound_trains_the_spread_and_the_error_the_noise(task):
    network = network_of(task)
    output = task.answer(network, batch(), Ask())
    for name in (NOISE, SPREAD):
        output[name].retain_grad()
    losses = task.loss(output, None).parts
    losses["bound"].backward(retain_graph=True)
    assert output[NOISE].grad is None or not output[NOISE].grad.any()
    assert output[SPREAD].grad.any()
    losses["noise"].backward()
    assert output[NOISE].grad.any()


def test_a_loss_in_pieces_is_the_loss_in_one(task):
    network, images = network_of(task), batch(5)
    whole = {IMAGES: 5}
    one = weighed(task.loss(task.answer(network, images, Ask()), images.targets), whole, whole)
    parts = []
    for low, high in ((0, 2), (2, 3), (3, 5)):
        piece = images.slice(low, high)
        losses = task.loss(task.answer(network, piece, Ask()), piece.targets)
        parts.append(weighed(losses, {IMAGES: high - low}, whole))
    torch.testing.assert_close(sum(parts), one)


def evaluated(task, images):
    found, network = task.evaluation(), network_of(task)
    with torch.no_grad():
        output = task.answer(network, images, Ask())
    found.update([Row(id, id) for id in images.ids], output, images.targets, [])
    return found


def test_evaluations_in_parts_and_merged_are_one(task):
    images = batch(5)
    whole = evaluated(task, images)
    first, second = (evaluated(task, images.slice(*cut)) for cut in ((3, 5), (0, 3)))
    first.merge(second)
    assert first.scores() == pytest.approx(whole.scores())
    assert (whole.main, whole.better) == ("error", "lower")
    counts = np.array([0, 2, 0, 0, 3.0])
    errors = whole.per_image()["error"]
    assert whole.resample(counts)["error"] == pytest.approx((2 * errors[1] + 3 * errors[4]) / 5)


def test_a_result_shows_images_by_level_and_errors(task):
    result = evaluated(task, batch(6)).result()
    assert [section.kind for section in result.sections] == ["overlays", "table", "limits"]
    assert "ant, bee, cat" in result.verdict
    assert sum(row[1] for row in result.sections[1].table.rows) == 6


def test_a_perfect_answer_gives_the_image_back(task):
    images = batch(2)
    output = {**task.answer(network_of(task), images, Ask())}
    drawn = np.stack([np.random.default_rng(0).standard_normal((3, 16, 16), np.float32)] * 2)
    noisy = task.with_noise(
        images, Drawn(torch.tensor([300, 600]), torch.from_numpy(drawn), torch.tensor([0, 1]))
    )
    output |= {
        NOISY: noisy.inputs["images"],
        LEVEL: noisy.inputs[TIME].float(),
        NOISE: torch.from_numpy(drawn),
    }
    found = task.decode(output, [], Ask())
    for one in found:
        assert np.abs(one.guess.astype(int) - one.truth).max() <= 1
        assert np.abs(one.noisy.astype(int) - one.truth).mean() > 10
    assert np.array_equal(found[0].truth, pixels_of(output[CLEAN])[0])


def test_an_image_of_a_seed_is_the_same_however_many_are_made(task):
    network, blank = network_of(task), torch.zeros(3, 16, 16)
    with torch.inference_mode():
        some = task.made(network, 1, 7, range(4), FEW, blank)
        others = task.made(network, 1, 7, range(2, 6), FEW, blank)
        other_seed = task.made(network, 1, 8, range(4), FEW, blank)
        other_class = task.made(network, 2, 7, range(4), FEW, blank)
    torch.testing.assert_close(some[2:], others[:2], rtol=0, atol=1e-4)
    assert not torch.allclose(some, other_seed)
    assert not torch.allclose(some, other_class)
    assert not torch.allclose(some[0], some[1])


def test_little_strength_keeps_the_image_and_all_of_it_keeps_nothing(task):
    network = network_of(task)
    start, other = batch(2).images
    apart = []
    for strength in (0.05, 0.5):
        way = Making(40, "ddim", 1.0, strength)
        with torch.inference_mode():
            apart.append(float((task.made(network, 0, 0, [0], way, start)[0] - start).abs().mean()))
    assert apart[0] < apart[1]
    whole = Making(40, "ddim", 1.0, 1.0)
    with torch.inference_mode():
        one, two = (task.made(network, 0, 0, [0], whole, image) for image in (start, other))
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"steps": 1}, "2 to 1000 steps"),
        ({"steps": 1001}, "2 to 1000 steps"),
        ({"sampler": "euler"}, "ddpm or ddim"),
        ({"guidance": -1.0}, "from 0"),
        ({"guidance": float("nan")}, "from 0"),
        ({"strength": 0.0}, "above 0"),
        ({"strength": 1.5}, "above 0"),
    ],
)
def test_ways_that_make_no_image_are_refused(stated, said, task):
    with pytest.raises(SettingError, match=said):
        Making.of(task.settings).changed(stated)


def test_the_proof_holds_noise_and_spread(task):
    network, steps = network_of(task), task.steps(Preprocess.for_size(16))
    numbers = answer(network, task, steps)
    assert len(numbers) <= FINGERPRINT
    assert numbers == answer(network, task, steps)
    half = len(numbers) // 2
    for part in (network.head.linear.bias[:48], network.head.linear.bias[48:], network.encoder.label.weight):
        with torch.no_grad():
            part.add_(0.3)
        moved = answer(network, task, steps)
        assert max(abs(a - b) for a, b in zip(numbers, moved, strict=True)) > 1e-3
        numbers = moved
    assert half


def test_inputs_are_numbers_from_minus_one_to_one(task):
    steps = task.steps(Preprocess.for_size(16))
    black, _ = steps.eval(np.zeros((16, 16, 3), np.uint8))
    white, _ = steps.eval(np.full((16, 16, 3), 255, np.uint8))
    assert (float(black.min()), float(white.max())) == (-1, 1)
    assert pixels_of(white[None]).min() == 255
    with pytest.raises(SettingError, match="8 bits"):
        task.steps(Preprocess.for_size(16, scale=65535.0))


@pytest.mark.parametrize("name", ["vit_digits", "resnet18", "swin_t"])
def test_other_networks_are_refused(name, task):
    with torch.device("meta"):
        encoder = create_encoder(name)
    with pytest.raises(SettingError, match="--model dit_s8"):
        task.refuse_network(encoder)


def test_noise_that_differs_does_not_agree(task):
    with torch.no_grad():
        output = task.answer(network_of(task), batch(2), Ask())
    moved = output[NOISE].clone()
    moved[1] += 0.1
    assert task.agree(output, {**output, NOISE: moved}).tolist() == [True, False]


def test_one_class_is_enough_and_no_image_is_not():
    targets = GenerateTargets(Truth("class", ("ant",)))
    targets.usable([Row("a.png", "a.png", "ant")], [])
    with pytest.raises(DataError, match="no image with a class"):
        targets.usable([], [])


def test_every_value_of_an_output_is_finite_at_the_first_and_the_last_level(task):
    images, draw = batch(2), torch.Generator().manual_seed(0)
    drawn = Drawn(torch.tensor([0, 999]), torch.randn(2, 3, 16, 16, generator=draw), torch.tensor([0, 1]))
    output = task.answer(network_of(task), task.with_noise(images, drawn), Ask())
    assert all(bool(torch.isfinite(output[name]).all()) for name in (ERROR, BOUND))
