"""The evaluation of retrieval: recall of several captions an image, equal captions, intervals, parts, chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from vitrail.data.batch import Geometry
from vitrail.data.manifest import Row
from vitrail.metrics.recall_at import chance, median_rank, pairing_of, ranks, recall_at
from vitrail.tasks.retrieve.evaluation import RetrievalEvaluation

AT = Geometry((8, 8), (8, 8), (0.0, 0.0, 8.0, 8.0))


def unit(values: Sequence[float]) -> np.ndarray:
    vector = np.asarray(values, np.float32)
    return vector / np.linalg.norm(vector)


def added(
    evaluation: RetrievalEvaluation, number: int, image: np.ndarray, captions: dict[str, np.ndarray]
) -> None:
    """Add one image with the vectors of its captions, as a batch of one."""
    output = {
        "image": torch.from_numpy(image)[None],
        "text": torch.from_numpy(np.stack(list(captions.values())))[None],
        "factor": torch.tensor([10.0]),
    }
    evaluation.update(
        [Row(f"{number:03d}", f"{number}.png", group=f"g:{number // 2}")], output, [tuple(captions)], [AT]
    )


def noisy(number: int, evaluation: RetrievalEvaluation, captions: int = 2) -> None:
    """Add an image whose captions lie near it, more or less; every fifth shares a caption with others."""
    draw = np.random.default_rng(number)
    image = unit(draw.normal(size=8))
    texts = {f"caption {i} of {number}": unit(image + draw.normal(0, 0.5, 8)) for i in range(captions)}
    if number % 5 == 0:
        texts["the same"] = unit(np.ones(8))
    added(evaluation, number, image, texts)


def of(numbers: Sequence[int]) -> RetrievalEvaluation:
    evaluation = RetrievalEvaluation()
    for number in numbers:
        noisy(number, evaluation)
    return evaluation


def test_any_of_several_captions_is_right():
    """Of two images the first has two captions; its second one is nearest, and the caption of the other its first."""
    x, y = unit([1, 0]), unit([0, 1])
    evaluation = RetrievalEvaluation()
    added(evaluation, 0, x, {"far": unit([0.1, 1]), "near": x})
    added(evaluation, 1, y, {"other": unit([0.5, 1])})
    values = evaluation.resample(np.ones(2))
    # "far" is the nearest caption of image 1, whose own comes second; of the captions, "far" finds the wrong image.
    assert values["image_to_text_1"] == 1 / 2
    assert values["image_to_text_5"] == 1
    assert values["text_to_image_1"] == pytest.approx(2 / 3)
    assert values["recall1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert (values["image_to_text_rank"], values["text_to_image_rank"]) == (1, 1)
    parts = evaluation.per_image()
    np.testing.assert_array_equal(parts["rank"], [1, 2])
    np.testing.assert_allclose(parts["recall1"], [(1 + 1 / 2) / 2, (0 + 1) / 2])


def test_equal_captions_are_one_candidate_and_right_for_each_of_their_images():
    evaluation = RetrievalEvaluation()
    bus = unit([1, 0.1])
    added(evaluation, 0, unit([1, 0]), {"a red bus": bus})
    added(evaluation, 1, unit([1, 0.2]), {"A red  bus": bus})
    added(evaluation, 2, unit([0, 1]), {"a tree": unit([0, 1])})
    whole = evaluation.whole()
    assert whole.texts == ("a red bus", "a tree")
    assert evaluation.scores()["recall1"] == 1
    told = evaluation.result().details["test"]
    assert (told["pictures"], told["captions"], told["different_captions"]) == (3, 3, 2)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_vectors_that_say_nothing_find_nothing(value):
    """Ties go to the wrong ones, and what is not a number is no match, so that a broken network scores 0."""
    pairs, _, _ = pairing_of([("a",), ("b",), ("c",)])
    vectors = np.full((3, 4), value, np.float32)
    np.testing.assert_array_equal(ranks(vectors, vectors, pairs), [3, 3, 3])


def test_ranks_are_those_of_sorted_cosines():
    draw = np.random.default_rng(0)
    captions = [
        tuple(f"{i} {j}" for j in range(1 + i % 3)) for i in range(700)
    ]  # more than one step of queries
    pairs, texts, _ = pairing_of(captions)
    image, text = (draw.normal(size=(n, 6)).astype(np.float32) for n in (700, len(texts)))
    order = np.argsort(-(image @ text.T), axis=1)
    expected = [
        1 + min(np.flatnonzero(order[i] == t)[0] for t in own) for i, own in enumerate(pairs.partners())
    ]
    np.testing.assert_array_equal(ranks(image, text, pairs), expected)


def test_chance_is_what_random_orders_reach():
    captions = [("a", "b"), ("c",), ("a",), ("d", "e", "f")]
    pairs, texts, _ = pairing_of(captions)
    draw = np.random.default_rng(1)
    found = np.zeros((2, 4))
    for _ in range(4000):
        place = np.argsort(draw.permutation(len(texts)))
        best = np.array([place[own].min() for own in pairs.partners()])
        found += np.stack([best < 1, best < 3])
    np.testing.assert_allclose(found[0] / 4000, chance(pairs, 1), atol=0.03)
    np.testing.assert_allclose(found[1] / 4000, chance(pairs, 3), atol=0.03)
    assert (chance(pairs, 99) == 1).all()


def test_parts_and_their_order_change_nothing():
    every = of(range(23))
    first, second = of([20, 3, *range(4, 12)]), of([*range(12, 20), 21, 22, 0, 1, 2])
    first.merge(second)
    assert [row.id for row in first.rows] == [row.id for row in every.rows]
    assert first.scores() == every.scores()
    assert first.result().numbers == every.result().numbers


def test_a_sample_counts_an_image_with_its_captions():
    evaluation = of(range(20))
    twice = evaluation.resample(np.full(20, 2.0))
    assert twice == pytest.approx(evaluation.resample(np.ones(20)))
    counts = np.random.default_rng(0).integers(0, 3, 20).astype(float)
    whole = evaluation.whole()
    rank = np.repeat(whole.to_text, counts.astype(int))
    sample = evaluation.resample(counts)
    assert sample["image_to_text_5"] == pytest.approx((rank <= 5).mean())
    assert sample["image_to_text_rank"] == np.sort(rank)[(len(rank) - 1) // 2]
    captions = np.repeat(whole.to_image[whole.pairs.text], counts[whole.pairs.image].astype(int))
    assert sample["text_to_image_1"] == pytest.approx((captions == 1).mean())


def test_intervals_hold_the_score_and_few_groups_have_none():
    numbers = of(range(40)).result().numbers
    for name, number in numbers.items():
        if number.low is None:  # a rank that no sample changes
            assert number.why == "no mistake to resample", name
            continue
        assert number.low <= number.value <= number.high, name
    assert numbers["recall1"].low < numbers["recall1"].high
    assert numbers["image_to_text_rank"].better == "lower"
    few = of(range(6)).result().numbers["recall1"]
    assert few.low is None
    assert few.why


def test_a_verdict_names_both_directions_chance_and_numbers():
    result = of(range(30)).result()
    assert "recall@1 image → caption" in result.verdict
    assert "caption → image" in result.verdict
    assert "on 30 images it never saw with 61 different captions" in result.verdict
    stated = result.details["test"]["chance"]
    assert stated["image_to_text_1"] == pytest.approx((24 * 2 / 61 + 6 * 3 / 61) / 30, abs=1e-6)
    assert stated["image_to_text_1"] < stated["image_to_text_5"] < stated["image_to_text_10"] < 1


def test_shares_and_medians_of_weights():
    rank = np.array([1, 5, 2, 9])
    assert recall_at(rank, 2, np.array([1.0, 1, 1, 1])) == 0.5
    assert recall_at(rank, 2, np.array([3.0, 0, 0, 1])) == 0.75
    assert median_rank(rank, np.ones(4)) == 2
    assert median_rank(rank, np.array([0.0, 0, 0, 1])) == 9


def test_the_loss_of_equal_texts_is_shared():
    """The softmax of a set counts every right caption of an image together, so many right ones cost nothing."""
    vector = unit([1, 0])
    evaluation = RetrievalEvaluation()
    added(evaluation, 0, vector, {"one": vector, "two": vector})
    added(evaluation, 1, vector, {"one": vector, "two": vector})
    assert evaluation.scores()["loss"] == pytest.approx(0, abs=1e-9)
    assert RetrievalEvaluation().scores()["pictures"] == 0
