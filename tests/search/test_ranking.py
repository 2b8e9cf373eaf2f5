"""The product and its order, copies, and what says that a match is no better than chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitrail.data.manifest import Row
from vitrail.search.image_index import Index, unit
from vitrail.search.ranking import UNRELATED, Limits, Query, best, image_limit, ordered, search, text_limit

NO_LIMITS = Limits(None, None)


def index_of(vectors, hashes=None):
    hashes = hashes or [f"h{number}" for number in range(len(vectors))]
    rows = tuple(Row(f"{number}.jpg", f"{number}.jpg", hash=one) for number, one in enumerate(hashes))
    return Index(Path(), rows, unit(vectors.astype(np.float32)), (), ())


def drawn(count, width=23, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width))


def test_the_order_is_that_of_the_cosines():
    index, query = index_of(drawn(500)), unit(drawn(1, seed=1))[0]
    [found] = search(index, [Query("q", "text", query)], 7, NO_LIMITS)
    wanted = np.argsort(-(index.vectors @ query), kind="stable")[:7]
    assert [one.row for one in found.matches] == wanted.tolist()
    np.testing.assert_allclose([one.score for one in found.matches], np.sort(index.vectors @ query)[::-1][:7])


def test_ties_keep_the_order_of_the_folder_and_nothing_is_left_out():
    scores = np.array([1, 3, 3, 0, 3, 2, 3], np.float32)
    for count in range(1, 8):
        assert best(scores, count).tolist() == [1, 2, 4, 6, 5, 0, 3][:count]
    draw = np.random.default_rng(0).integers(0, 9, 1000).astype(np.float32)
    assert list(ordered(draw, 3)) == np.argsort(-draw, kind="stable").tolist()


def test_copies_count_once_and_the_query_itself_is_left_out():
    vectors = drawn(40)
    vectors[[5, 9, 20]] = vectors[5]
    hashes = [f"h{number}" for number in range(40)]
    hashes[9] = hashes[20] = hashes[5]
    index = index_of(vectors, hashes)
    [found] = search(index, [Query("q", "text", index.vectors[5])], 3, NO_LIMITS)
    assert found.matches[0].id == "5.jpg"
    assert found.matches[0].copies == ("9.jpg", "20.jpg")
    assert len(found.matches) == 3
    [alike] = search(index, [Query("q", "image", index.vectors[5], (hashes[5],))], 3, NO_LIMITS)
    assert alike.same == ("5.jpg", "9.jpg", "20.jpg")
    assert not {"5.jpg", "9.jpg", "20.jpg"} & {one.id for one in alike.matches}
    assert len(alike.matches) == 3


def test_a_folder_smaller_than_the_list_and_one_with_the_query_only():
    index = index_of(drawn(2))
    [found] = search(index, [Query("q", "text", index.vectors[0])], 10, NO_LIMITS)
    assert len(found.matches) == 2
    [alone] = search(index_of(drawn(1)), [Query("q", "image", index.vectors[0], ("h0",))], 10, NO_LIMITS)
    assert not alone.matches


def test_a_picture_of_another_kind_is_weak_and_one_of_the_kind_is_not():
    """Images of eight kinds; a query of a kind that is there, and one of a kind that is not."""
    draw = np.random.default_rng(0)
    kinds = draw.normal(size=(9, 64))
    index = index_of(kinds[np.arange(400) % 8] + 0.4 * draw.normal(size=(400, 64)))
    limit = image_limit(index)
    assert limit is not None
    queries = [
        Query(
            name,
            "image",
            unit((kinds[kind] + 0.4 * draw.normal(size=64))[None].astype(np.float32))[0],
            ("q",),
        )
        for name, kind in (("known", 3), ("foreign", 8))
    ]
    known, foreign = search(index, queries, 5, Limits(None, limit))
    assert known.weak == 0
    assert foreign.weak == 5


def test_few_pictures_give_no_limit_and_copies_are_not_counted():
    assert image_limit(index_of(drawn(19))) is None
    assert (
        image_limit(index_of(np.repeat(drawn(19), 3, 0), [f"h{number // 3}" for number in range(57)])) is None
    )
    assert image_limit(index_of(drawn(20))) is not None


def test_one_unrelated_text_in_twenty_is_above_the_limit():
    """Whatever the folder and the width: other texts of no relation pass about as often as is said."""
    above = []
    for seed in range(40):
        index = index_of(drawn(300, seed=seed))
        limit = text_limit(index, lambda texts, seed=seed: unit(drawn(len(texts), seed=1000 + seed)))
        others = unit(drawn(200, seed=5000 + seed)).astype(np.float32)
        above.append(((index.vectors @ others.T).max(0) > limit).mean())
    assert 0.03 < np.mean(above) < 0.11  # 32 texts show the 19th of 20 only roughly
    assert len(set(UNRELATED)) == len(UNRELATED) == 32


def test_plain_data_of_a_search():
    index = index_of(drawn(30))
    [found] = search(index, [Query("a bus", "text", index.vectors[3])], 2, Limits(0.5, None))
    plain = found.to_dict()
    assert plain["query"] == "a bus"
    assert plain["matches"][0] == {"path": "3.jpg", "score": 1.0, "weak": False, "copies": []}
    assert plain["matches"][1]["weak"]
