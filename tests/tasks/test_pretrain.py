"""The task of masked pretraining: masks, the loss of hidden patches, scores under fixed masks, drawings, the proof."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.core.errors import SettingError
from vitrail.data.batch import Batch, Geometry
from vitrail.data.manifest import Row
from vitrail.data.preprocess import Preprocess
from vitrail.layers.masked_decoder import patchify
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network
from vitrail.runs.proof import answer
from vitrail.tasks.base import FINGERPRINT, Ask
from vitrail.tasks.pretrain import masks
from vitrail.tasks.pretrain.evaluation import PretrainEvaluation
from vitrail.tasks.pretrain.loss import (
    ERROR,
    HIDDEN,
    PATCHES,
    PIXELS,
    SPREAD,
    squared_error,
    variance,
    wanted,
)
from vitrail.tasks.pretrain.task import Pretrain
from vitrail.training.loop import IMAGES, weighed

TINY = {"image": 24, "patch": 6, "width": 26, "depth": 2, "heads": 2}
"""A grid of 4 × 4 patches."""


def network_of(task, **settings):
    torch.manual_seed(0)
    encoder = create_encoder("vit_s16", image=24, settings={**TINY, **settings})
    return build_network(encoder, task).eval()


def batch(count=3, side=24):
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, side, side, generator=draw)
    return Batch({"images": images}, [None] * count, tuple(f"{number}.png" for number in range(count)))


def test_masks_are_drawn_by_the_generator_and_keep_the_share():
    first, again = (masks.drawn(5, 16, 4, np.random.default_rng(7)) for _ in range(2))
    assert first.shape == (5, 4)
    assert torch.equal(first, again)
    assert len({tuple(row) for row in first.tolist()}) > 1
    assert all(len(set(row)) == 4 for row in first.tolist())


def test_a_fixed_mask_follows_from_the_id_alone():
    both = masks.fixed(["a", "b"], 196, 49)
    assert torch.equal(both[1:], masks.fixed(["b"], 196, 49))
    assert not torch.equal(both[0], both[1])


@pytest.mark.parametrize(
    ("patches", "mask", "seen"), [(196, 0.75, 49), (4, 0.99, 1), (4, 0.01, 3), (2, 0.5, 1)]
)
def test_at_least_one_patch_is_seen_and_one_hidden(patches, mask, seen):
    assert masks.count_seen(patches, mask) == seen


def test_an_image_of_one_patch_is_refused():
    with pytest.raises(SettingError, match="larger --imgsz"):
        masks.count_seen(1, 0.75)


def test_the_loss_is_that_of_the_paper_on_hidden_patches_only():
    draw = np.random.default_rng(0)
    pixels, guess = draw.normal(size=(2, 5, 12)), draw.normal(size=(2, 5, 12))
    hidden = np.array([[1, 0, 1, 0, 0], [0, 0, 1, 1, 0]], float)
    mean, spread = pixels.mean(-1, keepdims=True), pixels.var(-1, ddof=1, keepdims=True)
    per_patch = (((pixels - mean) / np.sqrt(spread + 1e-6) - guess) ** 2).mean(-1)
    expected = (per_patch * hidden).sum() / hidden.sum()
    true = wanted(torch.from_numpy(pixels).float(), True)
    found = squared_error(torch.from_numpy(guess), true, torch.from_numpy(hidden).float())
    assert float(found.mean()) == pytest.approx(expected, rel=1e-5)


def test_a_guess_of_a_seen_patch_changes_no_loss_and_no_gradient():
    task = Pretrain()
    network, images = network_of(task), batch()
    kept = masks.fixed(images.ids, 16, 4)
    output = task.answer(network, task.hide(images, kept), Ask())
    output[PATCHES].retain_grad()
    task.loss(output, images.targets).total.backward()
    moved = output[PATCHES].grad.abs().sum(-1) > 0
    assert torch.equal(moved, output[HIDDEN].bool())


def test_the_encoder_never_sees_a_hidden_patch():
    task = Pretrain()
    network, images = network_of(task), batch(1)
    kept = masks.fixed(images.ids, 16, 4)
    first = task.answer(network, task.hide(images, kept), Ask())[PATCHES]
    hidden = masks.hidden_of(kept, 16)[0].bool()
    changed = images.images.clone()
    for place in hidden.nonzero()[:, 0].tolist():
        row, col = divmod(place, 4)
        changed[..., 6 * row : 6 * row + 6, 6 * col : 6 * col + 6] += 3
    other = Batch({"images": changed}, [None], images.ids)
    torch.testing.assert_close(first, task.answer(network, task.hide(other, kept), Ask())[PATCHES])


def test_a_loss_in_pieces_is_the_loss_in_one():
    task = Pretrain()
    network, images = network_of(task), batch(5)
    whole = {IMAGES: 5, **task.weights(images.targets)}
    one = task.loss(task.answer(network, images, Ask()), images.targets)
    parts = []
    for low, high in ((0, 2), (2, 3), (3, 5)):
        piece = images.slice(low, high)
        losses = task.loss(task.answer(network, piece, Ask()), piece.targets)
        parts.append(weighed(losses, {IMAGES: high - low, **task.weights(piece.targets)}, whole))
    torch.testing.assert_close(sum(parts), weighed(one, whole, whole))


def test_the_training_draws_from_the_generator_it_is_given():
    task = Pretrain()
    network, images = network_of(task), batch()
    first, again, other = (
        float(task.training_loss(network, images, np.random.default_rng(seed), 0.0).total.detach())
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def evaluated(task, network, images):
    found = PretrainEvaluation(task.settings.mask, task.settings.normalise)
    output = {name: part.detach() for name, part in task.answer(network, images, Ask()).items()}
    rows = [Row(id, id) for id in images.ids]
    found.update(rows, output, images.targets, [])
    return found


def test_evaluations_in_parts_and_merged_are_one():
    task = Pretrain()
    network, images = network_of(task), batch(5)
    whole = evaluated(task, network, images)
    first, second = (evaluated(task, network, images.slice(*cut)) for cut in ((3, 5), (0, 3)))
    first.merge(second)
    assert first.scores() == pytest.approx(whole.scores())
    assert whole.scores()["explained"] == pytest.approx(1 - whole.scores()["loss"])
    counts = np.array([0, 2, 0, 0, 3.0])
    shares = whole.per_image()["explained"]
    assert whole.resample(counts)["explained"] == pytest.approx((2 * shares[1] + 3 * shares[4]) / 5)


def test_a_perfect_guess_explains_everything_and_the_mean_of_a_patch_nothing():
    pixels = patchify(batch(2).images, 6)
    hidden = masks.hidden_of(masks.fixed(("a", "b"), 16, 4), 16)
    for normalise in (True, False):
        true = wanted(pixels, normalise)
        spread = variance(true, hidden, normalise)
        assert squared_error(true, true, hidden).tolist() == [0, 0]
        flat = true.mean((1, 2), keepdim=True).expand_as(true)
        torch.testing.assert_close(
            1 - squared_error(flat, true, hidden) / spread, torch.zeros(2), atol=0.02, rtol=0
        )


def test_an_image_of_one_colour_gives_finite_scores():
    for normalise in (True, False):
        task = Pretrain(settings={"normalise": normalise})
        network = network_of(task)
        images = Batch({"images": torch.zeros(1, 3, 24, 24)}, [None], ("x",))
        scores = evaluated(task, network, images).scores()
        assert all(np.isfinite(value) for value in scores.values())


def test_a_result_shows_images_and_numbers():
    task = Pretrain()
    result = evaluated(task, network_of(task), batch(4)).result()
    assert [section.kind for section in result.sections] == ["overlays", "table", "limits"]
    assert "mean and the spread" in result.sections[0].hint
    assert len(result.sections[0].shots) == 4


def test_the_drawing_shows_the_true_patches_where_they_were_seen():
    task = Pretrain()
    steps = Preprocess.for_size(24)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    given, geometry = steps.eval(pixels)
    images = Batch({"images": given[None]}, [None], ("x",), (geometry,))
    output = {name: part.detach() for name, part in task.answer(network_of(task), images, Ask()).items()}
    output[PATCHES] = wanted(output[PIXELS], True)  # a perfect guess
    found = task.decode(output, [geometry], Ask())[0]
    assert found.explained == pytest.approx(1 - float(output[ERROR] / output[SPREAD]))
    seen, guess, truth = (np.asarray(panel) for panel in found.panels(Image.fromarray(pixels)))
    assert np.abs(truth.astype(int) - pixels).max() <= 1
    assert np.abs(guess.astype(int) - truth).max() <= 2
    assert (seen[found.hidden] == seen[found.hidden][0]).all()
    assert np.array_equal(seen[~found.hidden], truth[~found.hidden])
    assert found.hidden.mean() == 0.75


def test_a_padded_or_large_image_is_drawn_at_the_size_of_the_input():
    task = Pretrain()
    geometry = Geometry((30, 60), (24, 24), (-15.0, 0.0, 45.0, 60.0))
    images = Batch({"images": torch.randn(1, 3, 24, 24)}, [None], ("x",), (geometry,))
    output = {name: part.detach() for name, part in task.answer(network_of(task), images, Ask()).items()}
    drawn = task.glance(Image.new("RGB", (60, 30), (200, 10, 10)), output, geometry, None)
    assert drawn.width > 3 * 90


def test_the_proof_is_a_reconstruction_under_a_fixed_mask():
    task = Pretrain()
    network, steps = network_of(task), Preprocess.for_size(24)
    numbers = answer(network, task, steps)
    assert len(numbers) <= FINGERPRINT
    assert numbers == answer(network, task, steps)
    with torch.no_grad():
        network.head.predict.bias.add_(0.1)
    assert max(abs(a - b) for a, b in zip(numbers, answer(network, task, steps), strict=True)) > 0.01


def test_reconstructions_that_differ_do_not_agree():
    task = Pretrain()
    output = task.answer(network_of(task), batch(2), Ask())
    assert task.agree(output, output).tolist() == [True, True]
    moved = output[PATCHES].detach().clone()
    moved[1, 3] += 0.1
    assert task.agree(output, {**output, PATCHES: moved}).tolist() == [True, False]


@pytest.mark.parametrize(
    ("name", "settings", "fits"),
    [
        ("vit_s16", TINY, True),
        ("vit_s16", {**TINY, "position": "relative"}, False),
        ("vit_s16", {**TINY, "position": "2d"}, True),
        ("vit_s16", {**TINY, "patch": (6, 3)}, False),
        ("deit_s16", TINY, True),
        ("deit_s16_distilled", TINY, True),
        ("dinov2_s14", TINY, True),
        ("dinov2_s14_reg4", TINY, False),
        ("mae_s16", {}, True),
        ("swin_t", {}, False),
        ("resnet18", {}, False),
        ("mixer_s16", {}, False),
    ],
)
def test_networks_whose_patches_cannot_be_left_out_are_refused(name, settings, fits):
    with torch.device("meta"):
        encoder = create_encoder(name, image=24 if settings else None, settings=settings)
    if fits:
        Pretrain().refuse_network(encoder)
    else:
        with pytest.raises(SettingError, match="ViT, DeiT, MAE"):
            Pretrain().refuse_network(encoder)


@pytest.mark.parametrize("name", ["vit_s16", "deit_s16", "deit_s16_distilled", "dinov2_s14"])
def test_every_plain_column_learns(name):
    torch.manual_seed(0)
    task = Pretrain()
    encoder = create_encoder(name, image=24, settings=TINY)
    network, images = build_network(encoder, task), batch(4)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = task.loss(task.answer(network, images, Ask()), images.targets).total
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_a_decoder_of_the_paper_is_not_changed_silently():
    with torch.device("meta"):
        encoder = create_encoder("mae_s16")
    with pytest.raises(SettingError, match="--network decoder"):
        Pretrain(settings={"width": 64}).refuse_network(encoder)


@pytest.mark.parametrize(
    ("error", "said"), [(0.4, "Explains 60.0 % of hidden patches, on 20 images"), (1.2, "no better than the mean")]
)
def test_the_verdict_says_whether_anything_is_explained(error, said):
    evaluation = Pretrain().evaluation()
    draw = np.random.default_rng(0)
    errors = torch.from_numpy(error + 0.01 * draw.standard_normal(20))
    rows = [Row(f"{number}.png", f"{number}.png") for number in range(20)]
    evaluation.update(rows, {ERROR: errors, SPREAD: torch.ones(20)}, [None] * 20, [])
    assert said in evaluation.result().verdict
