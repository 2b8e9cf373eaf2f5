"""What a task promises of its answers and losses, on three tasks that the package does not know."""

from __future__ import annotations

import numpy as np
import own_tasks
import pytest
import torch

from vitrail.core.catalog import load
from vitrail.core.errors import RunError, SettingError
from vitrail.data.preprocess import Preprocess
from vitrail.data.truth import Truth
from vitrail.infer.predictor import Predictor
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network
from vitrail.runs.proof import answer
from vitrail.tasks.base import FINGERPRINT, Losses, within
from vitrail.tasks.classify.task import Classify
from vitrail.tasks.multilabel.task import MultiLabel
from vitrail.training.loop import IMAGES, weighed


@pytest.fixture
def paint():
    return own_tasks.Paint(Truth("mask", ("ground", "figure"), void=255))


@pytest.fixture
def spots():
    return own_tasks.FindSpots(Truth("boxes", ("dark", "light")))


def dense(side=37):
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 2, side, side, generator=draw)
    maps[:, 1, 5:17, 7:20] += 6
    return {"map": maps}


def boxes():
    draw = torch.Generator().manual_seed(0)
    middle = torch.rand(1, 6, 2, generator=draw) * 0.6 + 0.2
    corners = torch.cat([middle, torch.full((1, 6, 2), 0.2)], -1)
    return {"logits": torch.randn(1, 6, 3, generator=draw) * 4, "boxes": corners}


def test_a_dense_answer_that_moved_does_not_agree(paint):
    output = dense()
    assert paint.agree(output, output).tolist() == [True]
    assert paint.agree(output, {"map": output["map"].roll(3, -1)}).tolist() == [False]


def test_a_dense_answer_with_another_class_everywhere_does_not_agree(paint):
    output = dense()
    assert paint.agree(output, {"map": output["map"].flip(1)}).tolist() == [False]
    assert (paint.fingerprint(output) - paint.fingerprint({"map": output["map"].flip(1)})).abs().max() > 0.5


def test_a_permuted_set_agrees(spots):
    output, order = boxes(), torch.tensor([3, 1, 5, 0, 2, 4])
    mixed = {name: part[:, order] for name, part in output.items()}
    assert spots.agree(output, mixed).tolist() == [True]
    torch.testing.assert_close(spots.fingerprint(output), spots.fingerprint(mixed), rtol=0, atol=1e-6)


def test_one_box_moved_by_a_hundredth_does_not_agree(spots):
    output = boxes()
    moved = output["boxes"].clone()
    surest = int(output["logits"].softmax(-1)[0, :, :-1].amax(-1).argmax())
    moved[0, surest, 0] += 0.01
    assert spots.agree(output, {**output, "boxes": moved}).tolist() == [False]


def test_one_class_changed_does_not_agree(spots):
    output = boxes()
    logits = output["logits"].clone()
    surest = int(logits.softmax(-1)[0, :, :-1].amax(-1).argmax())
    logits[0, surest, :2] = logits[0, surest, [1, 0]]
    assert spots.agree(output, {**output, "logits": logits}).tolist() == [False]


@pytest.mark.parametrize(
    ("task", "shape"),
    [
        (Classify([str(i) for i in range(21_843)]), (21_843,)),
        (MultiLabel([str(i) for i in range(5_000)]), (5_000,)),
    ],
    ids=["classify", "multilabel"],
)
def test_a_fingerprint_stays_small_and_loses_no_change(task, shape):
    output = {"logits": torch.zeros(2, *shape)}
    output["logits"][0, 4321] = 12.0
    other = {"logits": output["logits"].roll(2, 1)}
    found = task.fingerprint(output)
    assert found.shape[0] == 2
    assert found.shape[1] <= FINGERPRINT
    assert (found - task.fingerprint(other))[0].abs().max() > 0.1 or not task.agree(output, other)[0]


def test_a_dense_fingerprint_stays_small_for_a_large_image(paint):
    assert paint.fingerprint({"map": torch.randn(1, 2, 1024, 1024)}).shape[1] <= FINGERPRINT


def test_spans_sum_to_the_whole():
    numbers = torch.rand(3, 10_007, dtype=torch.float64)
    found = within(numbers)
    assert found.shape[1] <= FINGERPRINT
    torch.testing.assert_close(found.sum(1), numbers.sum(1))


def test_probabilities_that_differ_a_little_are_a_tie():
    task = Classify(["a", "b"])
    one, other = {"logits": torch.tensor([[0.0, 1e-4]])}, {"logits": torch.tensor([[1e-4, 0.0]])}
    assert task.agree(one, other).tolist() == [False]
    assert task.agree(one, other, 1e-3).tolist() == [True]


def in_pieces(task, output, targets, cuts, whole):
    parts = []
    for low, high in zip((0, *cuts), (*cuts, len(targets)), strict=True):
        piece = {name: part[low:high] for name, part in output.items()}
        counts = {IMAGES: high - low, **task.weights(targets[low:high])}
        parts.append(weighed(task.loss(piece, targets[low:high]), counts, whole))
    return sum(parts)


def masks(count=5, side=11):
    draw = np.random.default_rng(0)
    targets = torch.from_numpy(draw.integers(0, 2, (count, side, side)))
    targets[0, :7] = 255
    targets[2] = 255  # nothing of this one counts
    return {"map": torch.randn(count, 2, side, side, dtype=torch.float64).requires_grad_()}, targets


def test_a_loss_in_pieces_is_the_loss_in_one(paint):
    """Void pixels and a piece that is void altogether included: a mean of means would be another number."""
    output, targets = masks()
    whole = {IMAGES: 5, **paint.weights(targets)}
    one = weighed(paint.loss(output, targets), whole, whole)
    pieces = in_pieces(paint, output, targets, (2, 3), whole)
    torch.testing.assert_close(pieces, one, rtol=1e-6, atol=0)
    gradients = [torch.autograd.grad(loss, output["map"], retain_graph=True)[0] for loss in (one, pieces)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-9)
    assert torch.all(gradients[0][targets[:, None].expand(-1, 2, -1, -1) == 255] == 0)


def test_a_loss_of_weighed_classes_in_pieces_is_the_loss_in_one():
    """torch divides by the weights of the classes that are there, which pieces have in other shares."""
    task = Classify(["a", "b"], {"class_weights": [5.0, 1.0], "mixup": 0.0, "cutmix": 0.0})
    output = {"logits": torch.randn(6, 2, generator=torch.Generator().manual_seed(0))}
    targets = [0, 0, 1, 1, 1, 1]
    whole = {IMAGES: 6, **task.weights(targets)}
    one = task.loss(output, targets).total
    torch.testing.assert_close(in_pieces(task, output, targets, (2,), whole), one)
    by_images = in_pieces(Classify(["a", "b"]), output, targets, (2,), {IMAGES: 6})
    torch.testing.assert_close(by_images, Classify(["a", "b"]).loss(output, targets).total)


def test_a_wrapper_around_a_task_that_learns_in_a_way_of_its_own_is_refused():
    inner = {"task": "distill", "settings": {"task": "classify", "teacher": "runs/large"}}
    for wrapped in (inner, {"task": "elastic", "settings": {"task": "classify"}}):
        with pytest.raises(SettingError, match="Remove --elastic"):
            load("task", "elastic")(["a", "b"], wrapped)


class Verbose(own_tasks.Paint):
    """A task whose proof would not fit into a model file."""

    def fingerprint(self, output):
        return output["map"].flatten(1)


class Silent(own_tasks.ReadValue):
    """A task that says nothing of an image, as in pretraining."""

    answers = False


def untrained(task, side=64):
    torch.manual_seed(0)
    return build_network(create_encoder("vit_digits", image=(side, side)), task).eval()


def test_a_fingerprint_that_no_model_file_holds_is_refused():
    task = Verbose(Truth("mask", ("ground", "figure"), void=255))
    with pytest.raises(SettingError, match=r"\(1, 8192\).*within"):
        answer(untrained(task), task, Preprocess.for_size(64))


def test_a_task_that_answers_nothing_is_not_asked(model_file):
    task = Silent(Truth("value"))
    task.name = f"{__name__}:Silent"
    predictor = Predictor(model_file("silent", untrained(task), task, Preprocess.for_size(64)))
    with pytest.raises(RunError, match="predicts nothing about an image"):
        predictor.predict(np.zeros((40, 40, 3), np.uint8))


def test_a_loss_over_processes_is_the_loss_in_one(paint):
    """The mean over two processes of their shares, each weighed by half of what the whole step counts."""
    output, targets = masks()
    whole = {IMAGES: 5, **paint.weights(targets)}
    one = weighed(paint.loss(output, targets), whole, whole)
    half = {name: count / 2 for name, count in whole.items()}
    first = {"map": output["map"][:3]}, targets[:3]
    second = {"map": output["map"][3:]}, targets[3:]
    shares = [
        weighed(paint.loss(*part), {IMAGES: len(part[1]), **paint.weights(part[1])}, half)
        for part in (first, second)
    ]
    torch.testing.assert_close(sum(shares) / 2, one, rtol=1e-6, atol=0)


def test_a_step_that_counts_nothing_of_a_part_is_nothing():
    nothing = {
        "pixels": torch.tensor(0.0, requires_grad=True),
        "boxes": torch.tensor(2.0, requires_grad=True),
    }
    total = weighed(Losses(nothing), {IMAGES: 2, "pixels": 0.0}, {IMAGES: 4, "pixels": 0.0})
    assert total.item() == 1.0
