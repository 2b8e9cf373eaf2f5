"""Four sub-networks a step, points by name, kept tokens in their places."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitrail.core.errors import SettingError
from vitrail.data.batch import Batch, images_only
from vitrail.explainers.grids import spread
from vitrail.explainers.rollout import follow, recorded
from vitrail.infer.operating_points import asked_for, beaten
from vitrail.layers.elastic import (
    OperatingPoint,
    at_size,
    can_keep,
    points,
    read_point,
    set_keep,
    smaller_sizes,
)
from vitrail.layers.gradient_checkpointing import set_checkpointing
from vitrail.layers.sdpa import Recorder, attend, class_attention
from vitrail.layers.tokens import Features
from vitrail.models.factory import build, create_encoder
from vitrail.models.supervit import SuperViTConfig
from vitrail.models.swin import SwinConfig
from vitrail.models.vit import ViTConfig
from vitrail.models.vvt import VVTConfig
from vitrail.runs.network import build_network, build_task
from vitrail.runs.recipe import compose
from vitrail.tasks.base import AT, Following
from vitrail.tasks.wrappers.elastic import points_of
from vitrail.training.elastic_recipe import with_operating_points

SMALL = ViTConfig(image=28, patch=7, width=24, depth=4, heads=3)


def network_and_task(name="elastic", **settings):
    torch.manual_seed(3)
    dial = {"sizes": [[14, 14], [21, 21]], "keeps": [0.5, 0.7]} | settings
    task = build_task(name, ["a", "b", "c"], dial)
    return build_network(build(SMALL), task).train(), task


def batch():
    images = torch.randn(5, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    return Batch({"images": images}, [0, 1, 2, 1, 0], tuple("abcde"))


def logits(network, images):
    return network({"images": images})["logits"]


def test_class_attention_is_the_first_row_of_the_softmax():
    q, k, v = torch.randn(3, 2, 3, 7, 5).unbind()
    record = Recorder()
    attend(q, k, v, record=record)
    torch.testing.assert_close(class_attention(q, k), record.maps[0].weights[:, :, 0].mean(1))


def test_a_step_sums_four_losses_and_their_gradients():
    network, task = network_and_task()
    found = task.training_loss(network, batch(), np.random.default_rng(5), 0.0)
    found.total.backward()
    ours = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    rng, images, truth = np.random.default_rng(5), batch().images, torch.tensor(batch().targets)
    smaller = task.settings.sizes[int(rng.integers(2))]
    losses = []
    for size in ((28, 28), smaller):
        seen = at_size(images, size)
        whole = logits(network, seen)
        losses.append(F.cross_entropy(whole, truth))
        losses[-1].backward()
        set_keep(network, task.settings.keeps[int(rng.integers(2))])
        told = whole.detach().softmax(-1)
        losses.append(F.kl_div(logits(network, seen).log_softmax(-1), told, reduction="batchmean"))
        losses[-1].backward()
        set_keep(network, 1.0)
    assert len(losses) == 4
    assert [name.partition(AT)[0] for name in found.parts] == ["cross_entropy", "follow"] * 2
    torch.testing.assert_close(torch.stack(list(found.parts.values())), torch.stack(losses))
    torch.testing.assert_close(found.total, sum(losses))
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_several_labels_are_taught_by_yes_and_no():
    network, task = network_and_task("elastic_multilabel")
    several = Batch(batch().inputs, [(0,), (), (0, 2), (1,), (1, 2)], batch().ids)
    assert torch.isfinite(task.training_loss(network, several, np.random.default_rng(0), 0.0).total)
    teacher = {"logits": torch.tensor([[30.0, -30.0, 0.0]])}
    assert task.follow(teacher, teacher, Following()).item() == pytest.approx(np.log(2) / 3, abs=1e-5)


def test_an_error_leaves_the_network_whole():
    network, task = network_and_task()
    with pytest.raises(SettingError):
        task._answer_at(network, images_only(torch.randn(1, 3, 28, 29)), 0.5)
    assert network.encoder.blocks.keep == 1.0


def test_kept_tokens_learn_alike_with_checkpointing():
    network, _ = network_and_task()
    set_keep(network, 0.5)

    def gradients():
        loss = logits(network, batch().images).square().sum()
        return torch.autograd.grad(loss, list(network.parameters()))

    plain = gradients()
    set_checkpointing(network, True)
    for a, b in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_summary_is_the_same_where_tokens_are_kept():
    network, _ = network_and_task()
    network.eval()
    images = batch().images
    for keep in (0.5, 1.0):
        set_keep(network, keep)
        with torch.no_grad():
            summary, whole = logits(network, images), network.head(network.encoder(images))["logits"]
        torch.testing.assert_close(summary, whole, rtol=0, atol=2e-6)


def test_kept_tokens_land_on_the_full_grid():
    encoder = build(
        SuperViTConfig(image=(28, 42), patch=7, width=24, depth=4, heads=3, stations=(1, 2))
    ).eval()
    set_keep(encoder, 0.5)
    record = Recorder()
    with torch.no_grad():
        tokens = encoder(torch.randn(2, 3, 28, 42), record=record).tokens
    assert [seen.weights.shape[-1] for seen in record.maps] == [25, 25, 14, 8]
    assert {seen.size for seen in record.maps} == {(25, 25)}
    assert tokens.kept.shape == (2, 7)
    grid = tokens.map()
    assert grid.shape == (2, 24, 4, 6)
    for one, picture in enumerate(tokens.kept):
        flat = grid[one].flatten(1)
        assert torch.equal(flat[:, picture], tokens.patches[one].T)
        assert int((flat.abs().sum(0) > 0).sum()) == 7
        last = record.maps[-1].dense()[one]
        there = [0, *(picture + 1).tolist()]
        assert sorted(last.sum((0, 1)).nonzero().flatten().tolist()) == sorted(there)
        torch.testing.assert_close(last[:, there].sum(-1), torch.ones(3, 8))
    start = torch.zeros(2, 25)
    start[:, 0] = 1
    dense = torch.eye(25).expand(2, 25, 25)
    for seen in record.maps:
        dense = (0.5 * seen.dense().mean(1) + 0.5 * torch.eye(25)) @ dense
    looked = follow(recorded(record.maps), start, Features(tokens)).row
    torch.testing.assert_close(looked, dense[:, 0])


def test_the_most_looked_at_stay():
    network, _ = network_and_task()
    encoder = network.encoder.eval()
    images = batch().images
    with torch.no_grad():
        record = Recorder()
        encoder(images, record=record)
        looks = record.maps[1].weights[:, :, 0].mean(1)[:, 1:]
        set_keep(encoder, 0.5)
        encoder.blocks.stations = (1,)
        kept = encoder(images).tokens.kept
    assert kept.shape[1] == 9  # half of 17, rounded up
    for row, chosen in zip(looks, kept, strict=True):
        assert set(chosen.tolist()) == set(row.topk(9).indices.tolist())


@pytest.mark.parametrize(
    "config",
    [
        VVTConfig((37, 67), 3, (12, 22), (1, 1), (1, 1), (2, 2), (2, 2), (1, 1)),
        SwinConfig((32, 64), 4, width=12, depths=(1, 2), heads=(1, 2), window=4),
    ],
)
def test_rollout_goes_down_a_pyramid(config):
    encoder, record = build(config).eval(), Recorder()
    with torch.no_grad():
        features = encoder(torch.randn(1, 3, *config.size), record=record)
    grids = [tuple(level.shape[2:]) for level in features.levels]
    n = features.tokens.x.shape[1]
    looked = follow(recorded(record.maps), torch.full((1, n), 1 / n), features).row
    assert looked.shape == (1, grids[0][0] * grids[0][1])
    assert (looked >= 0).all()


def test_shares_are_spread_over_the_finer_tokens():
    row = torch.rand(2, 2 * 3)
    fine = spread(row, (2, 3), (3, 6), 0)
    torch.testing.assert_close(fine.sum(1), row.sum(1))
    assert fine[0, 0] == pytest.approx(row[0, 0] / 3)  # two thirds of the half of a token


def test_points_have_names():
    assert str(OperatingPoint((160, 160), 0.7)) == "160px/0.7"
    assert read_point("160px/0.7") == OperatingPoint((160, 160), 0.7)
    assert read_point("160x224px/1") == read_point("160x224") == OperatingPoint((160, 224), 1.0)
    for wrong in ("", "px/0.7", "160px/1.2", "160px/0", "big"):
        with pytest.raises(SettingError, match=r"160px/0\.7"):
            read_point(wrong)


def test_sizes_stand_in_the_papers_proportions():
    assert smaller_sizes((224, 224), 16) == ((128, 128), (160, 160), (192, 192))
    assert smaller_sizes((32, 32), 4) == ((20, 20), (24, 24), (28, 28))
    assert smaller_sizes((112, 224), 16) == ((64, 128), (80, 160), (96, 192))
    assert len(points((*smaller_sizes((224, 224), 16), (224, 224)), (0.5, 0.7))) == 12


def test_a_point_nobody_trained_is_refused_with_those_there_are():
    _, task = network_and_task()
    known = points_of(task, (28, 28))
    assert asked_for("14px/0.5, 28px/1", known) == [OperatingPoint((14, 14), 0.5), OperatingPoint((28, 28))]
    assert asked_for("all", known) == list(known)
    with pytest.raises(SettingError, match=r"21px/0\.7, 21px/1"):
        asked_for("20px/1", known)
    alone = points_of(build_task("classify", ["a", "b"], {}), (28, 28))
    with pytest.raises(SettingError, match="--elastic"):
        asked_for("14px/0.5", alone)


def test_beaten_points_name_their_better():
    rows = [
        {"point": name, "score": {"value": value}, "images_per_second": speed}
        for name, value, speed in (("a", 0.7, 10), ("b", 0.8, 10), ("c", 0.6, 30), ("d", 0.6, 30))
    ]
    assert beaten(rows) == ["b", "", "", ""]
    errors = [row | {"score": {**row["score"], "unit": "px", "better": "lower"}} for row in rows]
    assert beaten(errors) == ["c", "c", "", ""]  # where less is better


def test_who_can_keep():
    assert can_keep(create_encoder("supervit_digits"))
    assert can_keep(create_encoder("vit_digits"))
    assert not can_keep(build(ViTConfig(28, 7, width=24, depth=2, heads=3, prefix=())))
    assert not can_keep(build(ViTConfig(28, 7, width=24, depth=2, heads=3, position="relative")))
    vvt = build(VVTConfig(64, 3, (12, 22), (1, 1), (1, 1), (2, 2), (2, 2), (1, 1)))
    assert not can_keep(vvt)
    with pytest.raises(SettingError, match="class token"):
        set_keep(vvt, 0.5)


def recipe(model, size, **training):
    values = {"model": {"name": model, "imgsz": (size, size)}, "data": {"source": "x"}, "training": training}
    return compose("scratch_small", values)


def test_what_a_training_is_dialled_to():
    with torch.device("meta"):
        supervit, vit, swin = (create_encoder(name) for name in ("supervit_s", "vit_s16", "swin_t"))
    found = with_operating_points(recipe("supervit_s", 224), supervit, None)
    assert found.task.name == "elastic"
    assert found.task.settings["sizes"] == [[128, 128], [160, 160], [192, 192]]
    assert found.task.settings["keeps"] == [0.5, 0.7]
    assert with_operating_points(recipe("supervit_s", 224), supervit, False).task.name == "classify"
    assert with_operating_points(recipe("vit_s16", 224), vit, None).task.name == "classify"
    assert with_operating_points(recipe("vit_s16", 224), vit, True).task.settings["sizes"][0] == [128, 128]
    with pytest.raises(SettingError, match="one cost"):
        with_operating_points(recipe("swin_t", 224), swin, True)
    with pytest.raises(SettingError, match="--tune full"):
        with_operating_points(recipe("vit_s16", 224, tune="draft"), vit, True)
