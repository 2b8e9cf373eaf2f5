"""A batch carries inputs and truths of any shape to a device, and is cut into pieces whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from vitrail.data.batch import Batch, Geometry


@pytest.fixture
def batch():
    """Four images with a time step each, a mask each, and a varying number of boxes."""
    inputs = {"images": torch.rand(4, 3, 5, 7), "time": torch.arange(4)}
    boxes = [{"boxes": torch.rand(many, 4), "difficult": many > 1} for many in range(4)]
    where = Geometry((5, 7), (5, 7), (0, 0, 5, 7))
    return Batch(inputs, {"masks": torch.zeros(4, 5, 7), "objects": boxes}, tuple("abcd"), (where,) * 4)


def tensors(part):
    """Yield every tensor of nested data."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, dict | list | tuple):
        for one in part.values() if isinstance(part, dict) else part:
            yield from tensors(one)


def test_a_loader_pins_every_tensor_of_a_batch(batch, monkeypatch):
    """No accelerator is needed to see that torch's loader asks each tensor to be pinned, and takes what that gives."""
    pinned = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: pinned.append(self.clone()) or pinned[-1])
    made = pin_memory(batch)
    found = [*tensors(dict(made.inputs)), *tensors(made.targets)]
    assert len(found) == 7
    assert {id(one) for one in found} == {id(one) for one in pinned}
    assert (made.ids, made.geometry) == (batch.ids, batch.geometry)
    assert made.targets["objects"][3]["difficult"] is True


def test_a_batch_moves_to_a_device_with_its_truths(batch):
    made = batch.to(torch.device("meta"))
    assert {one.device.type for one in (*tensors(dict(made.inputs)), *tensors(made.targets))} == {"meta"}
    assert batch.images.device.type == "cpu"


def test_truths_may_stand_as_deep_as_they_like():
    deep = Batch({"images": torch.zeros(2, 1)}, [(torch.zeros(1), [torch.zeros(2)]), ("a", [])], ("a", "b"))
    made = deep.to(torch.device("meta"))
    assert [one.device.type for one in tensors(made.targets)] == ["meta", "meta"]
    assert made.targets[1] == ("a", [])


def test_a_piece_of_a_batch_has_all_that_belongs_to_its_images(batch):
    piece = batch.slice(1, 3)
    assert (len(piece), piece.ids, len(piece.geometry)) == (2, ("b", "c"), 2)
    assert torch.equal(piece.inputs["time"], torch.tensor([1, 2]))
    assert torch.equal(piece.images, batch.images[1:3])
    assert piece.targets["masks"].shape == (2, 5, 7)
    assert [len(one["boxes"]) for one in piece.targets["objects"]] == [1, 2]
