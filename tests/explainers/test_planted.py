"""Planted truth: where one bright patch decides the class, relevance and occlusion point at it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vitrail.explainers import faithful
from vitrail.explainers.faithful import Baseline
from vitrail.explainers.settings import build_explainer
from vitrail.explainers.subject import Subject, shuffled
from vitrail.models.create import build
from vitrail.models.vit import ViTConfig
from vitrail.runs.assemble import build_task, join

SIDE, PATCH = 24, 4


def planted(count: int, seed: int, dim: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return noise with one bright patch each, whose colour is the class: pictures, classes, places.

    The last class is noise without a patch: else a network may take one colour for granted.
    """
    draw = torch.Generator().manual_seed(seed)
    images = 0.5 * torch.randn(count, 3, SIDE, SIDE, generator=draw)
    classes = torch.randint(4, (count,), generator=draw)
    cells = SIDE // PATCH
    places = torch.randint(cells * cells, (count,), generator=draw)
    for image, colour, place in zip(images, classes, places, strict=True):
        if colour == 3:
            continue
        for other in torch.randperm(cells * cells, generator=draw)[:3].tolist():  # dim ones, of any colour
            row, col = divmod(other, cells)
            image[int(other) % 3, row * PATCH : (row + 1) * PATCH, col * PATCH : (col + 1) * PATCH] += dim
        row, col = divmod(int(place), cells)
        image[colour, row * PATCH : (row + 1) * PATCH, col * PATCH : (col + 1) * PATCH] += 3
    return images, classes, places


CASES = {"cls": (0.8, ["occlusion"]), "mean": (1.2, ["occlusion", "relevance"])}
"""How bright the other patches are, and what points at the brightest.

The class token of so small a network looks at the bright patch so hard that more attention would change nothing: the
gradient there is 0, and relevance, which is made of it, points elsewhere in a third of the pictures.
"""


@pytest.fixture(scope="module", params=CASES)
def learnt(request):
    """A small network that has learnt to name the colour of the bright patch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    task = build_task("classify", ["red", "green", "blue", "none"], {"pool": request.param})
    config = ViTConfig(image=SIDE, patch=PATCH, width=24, depth=2, heads=3)
    network = join(build(config), task)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    for step in range(150):
        images, classes, _ = planted(64, step, CASES[request.param][0])
        loss = F.cross_entropy(network(images), classes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval().requires_grad_(False)
    images, classes, places = planted(80, 10_000, CASES[request.param][0])
    assert (network(images).argmax(1) == classes).float().mean() > 0.95
    bright = classes < 3
    yield network, task, images[bright], classes[bright], places[bright], CASES[request.param][1]
    torch.set_num_threads(threads)


def test_it_points_at_the_patch_that_decides(learnt):
    network, task, images, classes, places, methods = learnt
    for method in methods:
        explainer = build_explainer(method)
        hits = 0
        for image, truth, place in zip(images, classes, places, strict=True):
            answer = task.decode(network(image[None]), [None])[0]
            subject = Subject(network, task, task.about(answer, task.labels[truth]), "planted")
            hits += int(explainer(subject, image[None]).flatten().argmax()) == int(place)
        assert hits / len(images) >= 0.95, method


def test_what_is_true_passes_and_what_is_not_fails(learnt):
    network, task, images, *_ = learnt
    answer = task.decode(network(images[:1]), [None])[0]
    subject = Subject(network, task, answer, "planted")
    explainer = build_explainer("occlusion", {"window": 1})
    baseline = Baseline(subject, images[0])
    twins = [Subject(shuffled(network, seed), task, answer, "twin") for seed in (0, 1)]
    grid = explainer(subject, images[:1])[0].numpy()
    true = faithful.tested(explainer, grid, baseline, twins)
    assert true.deletion.low > 0
    assert true.insertion.low > 0
    assert abs(true.alike) < 0.5
    assert true.holds
    wrong = faithful.tested(explainer, -grid, baseline, twins)
    assert not wrong.holds
    assert wrong.deletion.high < 0
    edges = faithful.tested(
        lambda *_: torch.as_tensor(images[:1].abs().mean(1)), images[0].abs().mean(0).numpy(), baseline, twins
    )
    assert edges.alike == pytest.approx(1.0)
    assert "shuffled weights" in edges.words


def test_the_same_test_twice_gives_the_same_numbers(learnt):
    network, task, images, *_ = learnt
    answer = task.decode(network(images[:1]), [None])[0]
    subject = Subject(network, task, answer, "planted")
    grid = images[0].mean(0).numpy()
    assert Baseline(subject, images[0]).gains(grid) == Baseline(subject, images[0]).gains(grid)
