"""The smallest pieces of a step: batch norms need two values per channel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitrail.core.errors import SettingError, TrainingError
from vitrail.core.seeds import of_64_bits
from vitrail.data.batch import Batch
from vitrail.data.loader import Order
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network, build_task
from vitrail.runs.recipe import compose
from vitrail.training.loop import cut, steps
from vitrail.training.micro_batches import halve_micro_batch, smallest_piece
from vitrail.training.session import accelerator_for, open_session

LABELS = ("a", "b", "c")


def recipe(name="resnet10t", side=32, **training):
    plain = {"epochs": 1, "precision": "float32", "device": "cpu", "ema": 0.0}
    own = {"model": {"name": name, "imgsz": (side, side)}, "training": {**plain, **training}, "data": {}}
    return compose("cnn_scratch", own)


def assembled(made):
    torch.manual_seed(0)
    task = build_task(made.task.name, LABELS, made.task.settings)
    return build_network(create_encoder(made.model.name, image=made.model.imgsz), task), task


def opened(**training):
    made = recipe(**training)
    network, task = assembled(made)
    return open_session(
        made, network, task, Order(made.training.batch, made.training.batch, 0), accelerator_for("cpu")
    )


@pytest.mark.parametrize(("images", "pieces"), [(5, 3), (7, 3), (2, 2), (1, 1), (9, 4), (12, 12)])
def test_no_piece_is_smaller_than_it_may_be(images, pieces):
    whole = cut(images, pieces, 1)
    assert [len(part) for part in whole] == [len(part) for part in np.array_split(np.arange(images), pieces)]
    paired = cut(images, pieces, 2)
    assert min(map(len, paired)) >= min(2, images)
    for parts in (whole, paired):
        assert np.concatenate(parts).tolist() == list(range(images))


@pytest.mark.parametrize(
    ("name", "side", "least"), [("resnet10t", 32, 2), ("resnet10t", 64, 1), ("vit_digits", 32, 1)]
)
def test_one_picture_is_enough_but_for_batch_norms_on_one_place(name, side, least):
    made = recipe(name, side)
    network, task = assembled(made)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    network.train()
    assert smallest_piece(network, task, made.model) == least
    assert network.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    network.encoder.requires_grad_(False)  # its norms keep their statistics
    assert smallest_piece(network, task, made.model) == 1


def test_a_last_piece_of_one_is_learnt_with_another():
    session = opened(batch=5, micro=2)
    batch = Batch({"images": torch.randn(5, 3, 32, 32)}, torch.tensor([0, 1, 2, 0, 1]), tuple("abcde"))
    kinds = [event.kind for event in steps(session, iter([batch]), lambda: False)]
    assert kinds == ["step", "epoch"]
    assert (session.pieces, session.least) == (3, 2)


def test_a_smaller_piece_after_memory_ran_out_is_one_that_can_be_learnt_from():
    session = opened(batch=8, micro=4)
    halve_micro_batch(session, 8)
    assert session.pieces == 4
    with pytest.raises(TrainingError, match="Memory ran out"):
        halve_micro_batch(session, 8)


@pytest.mark.parametrize("training", [{"batch": 1}, {"batch": 8, "micro": 1}])
def test_one_picture_at_a_time_is_refused_before_the_first_step(training):
    with pytest.raises(
        SettingError, match=f"one image at a time at 32×32 px.*--{list(training)[-1]} 2 or more"
    ):
        opened(**training)


@pytest.mark.parametrize("side", [8, 16])
def test_a_size_that_a_network_cannot_take_is_refused_in_words(side):
    with pytest.raises(SettingError, match=f"does not accept images of {side}×{side} px .*larger --imgsz"):
        create_encoder("densenet121", image=(side, side))


def test_seeds_beyond_64_bits_are_seeds():
    for seed in (0, 7, -5, -(1 << 63), (1 << 64) - 1):
        assert of_64_bits(seed) == seed
    far = [of_64_bits(seed) for seed in (1 << 64, 10**30, -(10**30), -(1 << 63) - 1)]
    assert len(set(far)) == len(far)
    for seed in far:
        torch.manual_seed(seed)
