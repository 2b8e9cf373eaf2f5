"""Segments from the masks of queries: who owns a pixel, what is left out, and how many maps are in memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitrail.layers.boxes import boxes_of_masks
from vitrail.layers.log_odds import log_odds
from vitrail.tasks.query_merging import VOID, MergeRules, found_masks, merge_queries, paint

SIZE = (5, 7)


def halves() -> Tensor:
    """Return masks of the left four columns, the right four (one shared), everything, and nothing."""
    masks = torch.full((4, *SIZE), -9.0)
    masks[0, :, :4], masks[1, :, 3:], masks[2] = 9.0, 9.0, 9.0
    return masks


def sure_of(*kinds: int, at: float = 0.9) -> Tensor:
    """Return log-odds over three classes with this confidence; a class of -1 is "no object"."""
    shares = torch.full((len(kinds), 4), (1 - at) / 3)
    for query, kind in enumerate(kinds):
        shares[query, kind] = at
    return log_odds(shares.log())[:, :-1]


def itself(one: Tensor) -> Tensor:
    return one


def test_a_pixel_belongs_to_the_first_of_equal_queries():
    found = merge_queries(sure_of(2, 0, -1, 1), halves(), itself, SIZE, MergeRules(overlap=0.5))
    assert found.numbers.tolist() == [[0] * 4 + [1] * 3] * 5
    assert [(one.number, one.kind) for one in found.segments] == [(0, 2), (1, 0)]
    assert found.segments[0].score == pytest.approx(0.9)


def test_what_little_is_left_of_is_no_segment():
    found = merge_queries(sure_of(2, 0, -1, 1), halves(), itself, SIZE, MergeRules(overlap=0.75))
    assert found.numbers.tolist() == [[0] * 4 + [VOID] * 3] * 5
    assert len(found.segments) == 1


def test_stuff_is_one_segment_and_things_are_several():
    for stuff, count in (((), 2), ((0,), 1)):
        found = merge_queries(
            sure_of(0, 0, -1, 1), halves(), itself, SIZE, MergeRules(overlap=0.5, stuff=stuff)
        )
        assert len(found.segments) == count
        assert (found.numbers != VOID).all()


def test_without_a_confident_query_everything_is_void():
    found = merge_queries(sure_of(0, 1, 2, 0, at=0.7), halves(), itself, SIZE)
    assert (found.numbers == VOID).all()
    assert found.segments == ()


def test_only_the_maps_of_confident_queries_are_resized():
    seen: list[Tensor] = []

    def resized(one: Tensor) -> Tensor:
        seen.append(one)
        return one

    logits, masks = sure_of(2, 0, -1, -1), halves()
    merge_queries(logits, masks, resized, SIZE)
    assert len(seen) == 2
    seen.clear()
    found = list(found_masks(logits, masks, resized, 0.8))
    assert len(seen) == len(found) == 2
    assert [(one.query, one.kind) for one in found] == [(0, 2), (1, 0)]
    assert found[0].mask.dtype == torch.bool
    assert found[0].score == pytest.approx(0.9 * torch.tensor(9.0).sigmoid().item(), abs=1e-5)
    assert paint(iter(found), SIZE).numbers.tolist() == [[0] * 3 + [1] * 4] * 5


def test_log_odds_are_exact_where_a_class_is_certain():
    logits = torch.tensor([[60.0, 0.0, -60.0], [0.5, 0.25, 0.0], [3.0, 3.0, -40.0]])
    exact = logits.double()
    others = [torch.cat([exact[:, :c], exact[:, c + 1 :]], 1).logsumexp(1) for c in range(3)]
    torch.testing.assert_close(
        log_odds(logits).double(), exact - torch.stack(others, 1), rtol=1e-6, atol=1e-6
    )


def test_boxes_are_the_extents_of_masks():
    boxes = boxes_of_masks(halves() > 0)
    expected = [[2 / 7, 0.5, 4 / 7, 1], [5 / 7, 0.5, 4 / 7, 1], [0.5, 0.5, 1, 1], [0, 0, 0, 0]]
    torch.testing.assert_close(boxes, torch.tensor(expected))
