"""Planted truth: where one bright patch decides the class, relevance and occlusion point at it."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from vitrail.explainers import faithfulness
from vitrail.explainers.faithfulness import NOTHING, Baseline, Faithfulness, Gain
from vitrail.explainers.methods import build_explainer
from vitrail.explainers.target import Subject, shuffled
from vitrail.layers.elastic import set_merge
from vitrail.layers.sdpa import Recorder
from vitrail.models.factory import build
from vitrail.models.vit import ViTConfig
from vitrail.runs.network import Network, build_network, build_task
from vitrail.runs.run_network import ASK
from vitrail.tasks.base import Task

SIDE, PATCH = 24, 4
CELLS = SIDE // PATCH


class Planted(NamedTuple):
    """Images (b, 3, SIDE, SIDE), the chance of each class (b, 4), and colour, place and brightness of the patch."""

    images: torch.Tensor
    chances: torch.Tensor
    colours: torch.Tensor
    places: torch.Tensor
    bright: torch.Tensor


def planted(count: int, seed: int) -> Planted:
    """Return noise with dim patches of any colour and one that may be bright, 0 to 3: its colour is the class.

    The brighter it is the surer is its class, else the image is of the last one, `none`. Were the class sure as
    soon as there is a patch, all that a class token gathers would be that patch, the last norm would divide its
    strength away, and no score could hang on how much of it was gathered: gradients of 0, whatever it looks at.
    """
    draw = torch.Generator().manual_seed(seed)
    images = 0.5 * torch.randn(count, 3, SIDE, SIDE, generator=draw)
    colours = torch.randint(3, (count,), generator=draw)
    places = torch.randint(CELLS * CELLS, (count,), generator=draw)
    bright = 3 * torch.rand(count, generator=draw)
    for image, colour, place, more in zip(images, colours, places, bright, strict=True):
        for other in torch.randperm(CELLS * CELLS, generator=draw)[:3].tolist():
            _patch(image, other % 3, other).add_(0.8)
        _patch(image, int(colour), int(place)).add_(more)
    sure = torch.sigmoid(2 * bright - 3)
    chances = torch.zeros(count, 4).scatter_(1, colours[:, None], sure[:, None])
    chances[:, 3] = 1 - sure
    return Planted(images, chances, colours, places, bright)


def _patch(image: torch.Tensor, colour: int, place: int) -> torch.Tensor:
    row, col = divmod(place, CELLS)
    return image[colour, row * PATCH : (row + 1) * PATCH, col * PATCH : (col + 1) * PATCH]


def answer_of(network, task, image):
    return task.decode(network({"images": image}), [None], ASK)[0]


class Learnt(NamedTuple):
    """A small network that has learned how sure the colour of the bright patch is, and images where it is sure."""

    network: Network
    task: Task
    images: torch.Tensor
    colours: torch.Tensor
    places: torch.Tensor

    def subject(self, turn: int) -> Subject:
        answer = answer_of(self.network, self.task, self.images[turn : turn + 1])
        about = self.task.focus(answer, self.task.labels[self.colours[turn]])
        return Subject(self.network, self.task, about, "planted")


def learn(pool: str, seed: int, depth: int = 2, merge: int = 0) -> Learnt:
    torch.manual_seed(seed)
    task = build_task("classify", ["red", "green", "blue", "none"], {"pool": pool})
    network = build_network(build(ViTConfig(image=SIDE, patch=PATCH, width=24, depth=depth, heads=3)), task)
    set_merge(network, merge)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    for step in range(150):
        drawn = planted(64, 1000 * seed + step)
        loss = F.cross_entropy(network({"images": drawn.images})["logits"], drawn.chances)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval().requires_grad_(False)
    drawn = planted(240, 10_000)
    sure = drawn.bright > 2.25
    images, colours = drawn.images[sure], drawn.colours[sure]
    assert (network({"images": images})["logits"].argmax(1) == colours).float().mean() > 0.95
    return Learnt(network, task, images, colours, drawn.places[sure])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["cls", "mean"])
def learnt(request):
    """Three networks, so that no single draw decides."""
    return [learn(request.param, seed) for seed in (0, 1, 2)]


@pytest.fixture(scope="module", params=["cls", "mean"])
def merging(request):
    """Two networks that learned while half of the patches were merged, a quarter in each of two blocks."""
    return [learn(request.param, seed, depth=3, merge=CELLS * CELLS // 4) for seed in (0, 1)]


@pytest.mark.parametrize("method", ["occlusion", "relevance"])
def test_it_points_at_the_patch_that_decides(learnt, method):
    explainer = build_explainer(method)
    hits = [
        int(explainer(one.subject(turn), image[None]).flatten().argmax()) == int(place)
        for one in learnt
        for turn, (image, place) in enumerate(zip(one.images, one.places, strict=True))
    ]
    assert sum(hits) / len(hits) >= 0.95


@pytest.mark.parametrize("method", ["occlusion", "relevance"])
def test_it_points_at_the_token_that_holds_the_patch(merging, method):
    """A map of merged tokens tells patches of one token apart by the blocks before the merge only: a tie, nearly."""
    explainer = build_explainer(method)
    hits, held = [], []
    for one in merging:
        for turn, (image, place) in enumerate(zip(one.images, one.places, strict=True)):
            found = explainer(one.subject(turn), image[None]).flatten()
            record = Recorder()
            one.network.encoder(image[None], record=record)
            token = record.maps[-1].source[0, 1:]
            hits.append(bool(token[found.argmax()] == token[place]))
            held.append(int((token == token[place]).sum()))
    assert sum(hits) / len(hits) >= 0.95
    assert sum(held) / len(held) < 3  # so that a hit says something


def test_what_is_true_passes_and_what_is_not_fails(learnt):
    network, task, images, *_ = learnt[0]
    answer = answer_of(network, task, images[:1])
    subject = Subject(network, task, answer, "planted")
    explainer = build_explainer("occlusion", {"window": 1})
    baseline = Baseline(subject, images[0])
    twins = [Subject(shuffled(network, seed), task, answer, "twin") for seed in (0, 1)]
    grid = explainer(subject, images[:1])[0].numpy()
    true = faithfulness.tested(explainer, grid, baseline, twins)
    assert true.deletion.low > 0
    assert true.insertion.low > 0
    assert abs(true.alike) < 0.5
    assert true.holds
    wrong = faithfulness.tested(explainer, -grid, baseline, twins)
    assert not wrong.holds
    assert wrong.deletion.high < 0
    edges = faithfulness.tested(
        lambda *_: torch.as_tensor(images[:1].abs().mean(1)), images[0].abs().mean(0).numpy(), baseline, twins
    )
    assert edges.alike == pytest.approx(1.0)
    assert "shuffled weights" in edges.words


def test_the_same_test_twice_gives_the_same_numbers(learnt):
    network, task, images, *_ = learnt[0]
    answer = answer_of(network, task, images[:1])
    subject = Subject(network, task, answer, "planted")
    grid = images[0].mean(0).numpy()
    assert Baseline(subject, images[0]).gains(grid) == Baseline(subject, images[0]).gains(grid)


def test_gains_that_round_to_nothing_are_nothing():
    none, much = Gain(0.002, 0.001, 0.003), Gain(0.2, 0.1, 0.3)
    assert Faithfulness(much, much, 0.1).holds
    assert not Faithfulness(none, none, 0.1).holds
    assert Faithfulness(none, none, 0.1).words == NOTHING
    assert "order by insertion" in Faithfulness(much, none, 0.1).words
    assert str(Gain(-0.001, -0.002, -0.0)) == "+0.00 (+0.00 … +0.00)"
