"""What the task of retrieval promises: heads for any encoder, captions drawn by key, predictions, scores, reports."""

from __future__ import annotations

import json
import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from vitrail.core.errors import RunError, SettingError
from vitrail.data.batch import Batch
from vitrail.data.manifest import Row
from vitrail.data.truth import Truth
from vitrail.data.vocabulary import learnt_vocabulary
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network, build_task, lend_network, stored_of, take_stored
from vitrail.studies.compare.outcome import score_of
from vitrail.tasks.base import Ask
from vitrail.tasks.result import Gallery, Scope, TableSection

pytest.importorskip("tokenizers")

CAPTIONS = [("a red bus",), ("a blue car", "a car in the rain"), ("a green tree",), ("A red bus", "two dogs")]
SIZES = {"embed": 7, "text_width": 12, "text_depth": 1, "text_heads": 3, "context": 11}
TINY_VIT = {"width": 12, "depth": 1, "heads": 3, "patch": 4}


def task_of(**settings):
    task = build_task("retrieve", Truth("caption"), {**SIZES, **settings})
    task.vocabulary = learnt_vocabulary([one for own in CAPTIONS for one in own], 300, 11)
    return task


def network_of(task, name="vit_digits", side=8, settings=TINY_VIT):
    torch.manual_seed(0)
    network = build_network(create_encoder(name, image=(side, side), settings=settings), task)
    return network.eval()


def batch_of(side=8, captions=CAPTIONS):
    images = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(1))
    return Batch({"images": images}, captions, tuple("abcd"))


def rows():
    return [
        Row(id=one, path=f"{one}.png", target=json.dumps(own))
        for one, own in zip("abcd", CAPTIONS, strict=True)
    ]


def evaluated(task, network):
    evaluation = task.evaluation()
    with torch.no_grad():
        output = task.answer(network, batch_of(), Ask())
    evaluation.update(rows(), output, CAPTIONS, ())
    return evaluation


@pytest.mark.parametrize(
    ("name", "side", "settings"),
    [
        ("vit_digits", 8, TINY_VIT),
        ("dinov2_s14", 28, {"width": 12, "depth": 1, "heads": 3}),
        ("swin_t", 32, {"width": 12, "depths": [1, 1], "heads": [1, 2], "patch": 4, "window": 4}),
        ("resnet10t", 32, None),
    ],
)
def test_any_encoder_learns_from_captions(name, side, settings):
    task = task_of()
    network = network_of(task, name, side, settings or {})
    loss = task.training_loss(network, batch_of(side), np.random.default_rng(0), 0.0).total
    loss.backward()
    assert torch.isfinite(loss)
    without = [name for name, one in network.named_parameters() if one.requires_grad and one.grad is None]
    assert not without
    assert network(batch_of(side).inputs)["image"].shape == (4, 7)


def test_training_draws_each_caption_by_its_key_and_keeps_the_others_beside_it():
    task, several = task_of(), ("a", "b", "c")
    drawn = Counter(task.drawn(several, key)[0] for key in range(300))
    assert set(drawn) == set(several)
    assert min(drawn.values()) > 60
    assert task.drawn(several, 7) == task.drawn(several, 7)
    assert sorted(task.drawn(several, 7)) == sorted(several)


def test_only_the_first_caption_is_encoded_and_zeros_at_the_end_are_cut():
    task = task_of()
    task.vocabulary = learnt_vocabulary([one for own in CAPTIONS for one in own], 300, 40)
    longest = max(map(np.count_nonzero, task.vocabulary.tokens([own[0] for own in CAPTIONS])))
    ready = task.prepare(batch_of(), np.random.default_rng(0), 0.0)
    assert ready.inputs["tokens"].shape == (4, -(-longest // 8) * 8)
    assert ready.inputs["tokens"].shape[1] < 40
    keys = ready.targets
    assert keys.drawn[0] == keys.drawn[3]  # capitals do not count
    assert keys.own[1].unique().numel() == 2
    assert keys.own[0].unique().tolist() == [int(keys.drawn[0])]


def test_the_scale_is_at_most_a_hundred_in_training():
    task = task_of()
    network = network_of(task).train()
    with torch.no_grad():
        network.head.scale.fill_(9.0)
    task.training_loss(network, batch_of(), np.random.default_rng(0), 0.0)
    assert network.head.scale.exp().item() == pytest.approx(100.0)


def test_what_a_task_stores_makes_it_again():
    task = task_of()
    lend_network(task, network_of(task))
    task.choose_texts(["a red bus", "two dogs"])
    again = build_task("retrieve", Truth("caption"), SIZES)
    take_stored(again, json.loads(json.dumps(stored_of(task))))
    assert again.vocabulary == task.vocabulary
    assert again.known.texts == task.known.texts
    np.testing.assert_array_equal(again.known.vectors, task.known.vectors)


def test_predictions_are_the_nearest_known_texts():
    task = task_of()
    network = network_of(task)
    output = network(batch_of().inputs)
    (nothing, *_) = task.decode(output, [None] * 4, Ask())
    assert not nothing.captions
    assert "no captions" in str(nothing)
    assert task.agree(output, output).all()
    lend_network(task, network)
    texts = [one for own in CAPTIONS for one in own]
    task.choose_texts(texts)
    for prediction, image in zip(task.decode(output, [None] * 4, Ask(top=3)), output["image"], strict=True):
        cosines = task.vectors(texts) @ image.detach().numpy()
        order = np.argsort(-cosines, kind="stable")[:3]
        assert prediction.captions == tuple(texts[i] for i in order)
        np.testing.assert_allclose(prediction.cosines, cosines[order], rtol=1e-5)
        assert json.dumps(prediction.to_dict())


def test_any_text_can_be_explained_and_its_score_is_the_cosine():
    task = task_of()
    network = network_of(task)
    lend_network(task, network)
    task.choose_texts(["a red bus", "two dogs"])
    output = network(batch_of().inputs)
    first = task.decode(output, [None] * 4, Ask())[0]
    chosen = task.focus(first, "a blue tree")
    wanted = output["image"].detach().numpy() @ task.vectors(["a blue tree"])[0]
    np.testing.assert_allclose(task.score(output, chosen).detach().numpy(), wanted, atol=1e-6)
    assert task.score(output, first).requires_grad
    assert "a blue tree" in task.choices(chosen)
    with pytest.raises(SettingError, match="needs a text"):
        task.focus(first, "  ")


def test_a_damaged_text_tower_is_noticed_when_it_first_encodes():
    task = task_of()
    network = network_of(task)
    lend_network(task, network)
    task.choose_texts(["a red bus", "two dogs"])
    other = build_task("retrieve", Truth("caption"), SIZES)
    take_stored(other, stored_of(task))
    with torch.no_grad():
        network.head.tower.embed.weight.mul_(-1)
    lend_network(other, network)
    with pytest.raises(RunError, match="damaged"):
        other.vectors(["a green tree"])


def test_an_open_graph_encodes_no_texts():
    with pytest.raises(RunError, match="image tower only"):
        task_of().vectors(["a red bus"])


def test_an_evaluation_in_parts_is_the_one_of_all_and_travels_between_processes():
    task = task_of()
    network = network_of(task)
    whole = evaluated(task, network)
    with torch.no_grad():
        output = task.answer(network, batch_of(), Ask())
    parts = []
    for low, high in ((2, 4), (0, 2)):
        part = task.evaluation()
        cut = {name: one[low:high] for name, one in output.items()}
        part.update(rows()[low:high], cut, CAPTIONS[low:high], ())
        parts.append(pickle.loads(pickle.dumps(part)))
    merged = task.evaluation()
    for part in parts:
        merged.merge(part)
    assert merged.scores() == pytest.approx(whole.scores())
    assert merged.result().numbers.keys() == whole.result().numbers.keys()


def test_a_resampled_image_counts_as_often_as_it_is_drawn():
    whole = evaluated(task := task_of(), network_of(task))
    each = whole.per_image()["recall1"]
    for place in range(3):
        counts = np.zeros(4)
        counts[place] = 3
        assert whole.resample(counts)["recall1"] == pytest.approx(each[place])
    assert score_of(whole).name == "recall1"
    np.testing.assert_array_equal(score_of(whole).values, each)


def test_a_report_marks_what_is_right_and_says_what_chance_reaches():
    whole = evaluated(task := task_of(), network_of(task))
    result = whole.result(Scope("images of a test"))
    table = next(one for one in result.sections if isinstance(one, TableSection))
    assert [row[1] for row in table.table.rows if row[1]] == [5, 4]  # different captions, and images
    assert "chance" in result.verdict
    assert result.details["test"]["different_captions"] == 5
    assert result.details["test"]["captions"] == 6
    galleries = [one for one in result.sections if isinstance(one, Gallery)]
    assert len(galleries) == 5
    assert all(shot.caption[0] in "✓✗" for one in galleries for shot in one.shots)
    shown = {shot.id: shot for shot in galleries[0].shots}
    assert {id for id, shot in shown.items() if shot.caption.startswith("✓")} == {
        row.id for row, rank in zip(whole.rows, whole.whole().to_text, strict=True) if rank == 1
    }
    assert json.dumps(result.to_dict())
