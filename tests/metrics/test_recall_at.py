"""Ranks, recall and chance of retrieval, against small cases that can be counted by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from vitrail.metrics.recall_at import chance, median_rank, pairing_of, ranks, recall_at

CAPTIONS = [("a cat", "one cat"), ("a dog",), ("A  cat",)]


def unit(rows):
    rows = np.array(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_equal_captions_are_one_candidate_that_is_right_for_each_of_their_images():
    pairs, texts, firsts = pairing_of(CAPTIONS)
    assert texts == ("a cat", "one cat", "a dog")
    assert firsts.tolist() == [0, 1, 2]
    assert [own.tolist() for own in pairs.partners()] == [[0, 1], [2], [0]]
    assert [own.tolist() for own in pairs.turned().partners()] == [[0, 2], [0], [1]]


def test_the_rank_is_that_of_the_nearest_right_one():
    pairs = pairing_of(CAPTIONS)[0]
    images, texts = unit([[1, 0], [1, 0.1], [0, 1]]), unit([[1, 0.2], [1, 0], [0, 1]])
    # Image 0: "one cat" is its own and the nearest. Image 1: the dog is the farthest of three. Image 2: the dog is
    # nearer.
    assert ranks(images, texts, pairs).tolist() == [1, 3, 2]
    assert ranks(texts, images, pairs.turned()).tolist() == [2, 1, 2]


def test_equal_vectors_find_nothing():
    pairs = pairing_of([("a",), ("b",), ("c",)])[0]
    same = unit([[1, 1]] * 3)
    assert ranks(same, same, pairs).tolist() == [3, 3, 3]


def test_recall_and_median_rank_count_weights():
    rank, weights = np.array([1, 6, 2, 9]), np.array([1.0, 0.0, 2.0, 1.0])
    assert recall_at(rank, 1, weights) == pytest.approx(1 / 4)
    assert recall_at(rank, 5, weights) == pytest.approx(3 / 4)
    assert median_rank(rank, weights) == 2.0


@pytest.mark.parametrize("k", [1, 2, 3, 10])
def test_chance_is_what_all_orders_of_the_candidates_reach(k):
    pairs = pairing_of([("a", "b"), ("c",), ("d", "a", "c")])[0]
    orders = list(permutations(range(pairs.texts)))
    for found, own in zip(chance(pairs, k), pairs.partners(), strict=True):
        right = set(own.tolist())
        assert found == pytest.approx(np.mean([bool(right & set(order[:k])) for order in orders]))
