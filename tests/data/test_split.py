from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from vitrail.core.errors import DataError, SettingError
from vitrail.data.manifest import Manifest, Row
from vitrail.data.split import Assigned, leaks
from vitrail.data.split import assign as assign_by
from vitrail.data.truth import Truth
from vitrail.tasks.multilabel.targets import LabelTargets

TARGETS = LabelTargets(Truth("classes"))


def assign(manifest: Manifest, *, seed: int, val: float | None = None, test: float | None = None) -> Assigned:
    return assign_by(manifest, TARGETS.strata, seed=seed, val=val, test=test)


def manifest(rows: list[Row]) -> Manifest:
    return Manifest.of(rows, Path("data"))


def rows(counts: dict[str, int], **fields: str) -> list[Row]:
    return [
        Row(f"{label}/{i}.png", f"{label}/{i}.png", "", label, **fields)
        for label, many in counts.items()
        for i in range(many)
    ]


def splits(done: Manifest) -> dict[str, str]:
    return {row.id: row.split for row in done.rows()}


def test_every_class_is_split_in_proportion() -> None:
    counts = assign(manifest(rows({"a": 100, "b": 40, "c": 20})), seed=1).manifest.counts(TARGETS)
    assert counts == {
        "train": {"a": 70, "b": 28, "c": 14},
        "val": {"a": 15, "b": 6, "c": 3},
        "test": {"a": 15, "b": 6, "c": 3},
    }


def test_the_order_of_the_rows_does_not_matter_but_the_seed_does() -> None:
    every = rows({"a": 50, "b": 50})
    mixed = random.Random(3).sample(every, len(every))
    assert splits(assign(manifest(every), seed=1).manifest) == splits(
        assign(manifest(mixed), seed=1).manifest
    )
    assert splits(assign(manifest(every), seed=1).manifest) != splits(
        assign(manifest(every), seed=2).manifest
    )


def test_a_group_never_crosses() -> None:
    every = [row._replace(group=f"patient {i % 12}") for i, row in enumerate(rows({"a": 60, "b": 60}))]
    done = assign(manifest(every), seed=5).manifest
    homes: dict[str, set[str]] = {}
    for row in done.rows():
        homes.setdefault(row.group, set()).add(row.split)
    assert all(len(home) == 1 for home in homes.values())
    assert set(done.counts(TARGETS)) == {"train", "val", "test"}


def test_tiny_classes_train_first_then_test_then_val_and_it_is_said() -> None:
    done = assign(manifest(rows({"many": 40, "one": 1, "two": 2, "three": 3})), seed=0)
    counts = done.manifest.counts(TARGETS)
    assert [counts[s]["one"] for s in ("train", "val", "test")] == [1, 0, 0]
    assert [counts[s]["two"] for s in ("train", "val", "test")] == [1, 0, 1]
    assert [counts[s]["three"] for s in ("train", "val", "test")] == [1, 1, 1]
    assert any("one, two" in note for note in done.notes)


def test_given_splits_stay_and_only_what_is_missing_is_drawn() -> None:
    given = rows({"a": 40, "b": 40}, split="train") + [
        Row(f"test/{i}", f"test/{i}", "", "ab"[i % 2], "test") for i in range(10)
    ]
    done = assign(manifest(given), seed=0)
    after = done.manifest.counts(TARGETS)
    assert sum(after["test"].values()) == 10
    assert after["val"] == {"a": 6, "b": 6}
    assert done.notes == ("The splits given stay; val drawn from train.",)


def test_all_three_given_are_left_alone() -> None:
    given = [
        Row(f"{s}/{i}", f"{s}/{i}", "", "ab"[i % 2], s) for s in ("train", "val", "test") for i in range(6)
    ]
    done = assign(manifest(given), seed=0)
    assert splits(done.manifest) == {row.id: row.split for row in given}
    assert done.notes == ()


def test_a_given_val_without_test_scores_and_a_new_val_is_drawn() -> None:
    given = rows({"a": 40, "b": 40}, split="train") + [
        Row(f"v/{i}", f"v/{i}", "", "ab"[i % 2], "val") for i in range(10)
    ]
    done = assign(manifest(given), seed=0)
    assert {row.split for row in done.manifest.rows() if row.id.startswith("v/")} == {"test"}
    assert sum(done.manifest.counts(TARGETS)["val"].values()) == 12
    assert "given val scores" in done.notes[0]


def test_several_labels_a_row_are_stratified_together() -> None:
    draw = random.Random(0)
    every = [
        Row(f"{i:03}", f"{i:03}", "", "|".join(sorted(draw.sample("abcde", draw.randint(0, 3)))))
        for i in range(400)
    ]
    done = assign(manifest(every), seed=0).manifest
    assert done.truth.kind == "classes"
    whole = Counter(one for row in every for one in TARGETS.strata(row))
    for split, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
        found = Counter(one for row in done.rows(split) for one in TARGETS.strata(row))
        for label, number in whole.items():
            assert found[label] / number == pytest.approx(share, abs=0.04)


def test_quarantined_rows_get_no_split() -> None:
    broken = Row("x", "x", "", "a", state="quarantined", reason="broken")
    done = assign(manifest([*rows({"a": 9, "b": 9}), broken]), seed=0).manifest
    assert next(row for row in done.rows(state=None) if row.id == "x") == broken


def test_no_val_and_no_test_can_be_asked_for() -> None:
    assert set(assign(manifest(rows({"a": 5, "b": 5})), seed=0, val=0, test=0).manifest.counts(TARGETS)) == {
        "train"
    }


def test_rows_that_leak_are_listed() -> None:
    given = [row._replace(split="train", group=f"g{i}") for i, row in enumerate(rows({"a": 20, "b": 20}))]
    given += [
        Row("t/0", "t/0", "", "a", "test", "g3"),
        Row("t/1", "t/1", "", "b", "test", "own"),
        Row("t/2", "t/2", "", "b", "test"),
    ]
    assert leaks(assign(manifest(given), seed=0, val=0).manifest) == ["t/0"]
    assert leaks(assign(manifest(rows({"a": 20, "b": 20})), seed=0).manifest) == []


def test_what_leaves_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(SettingError, match="nothing to train on"):
        assign(manifest(rows({"a": 5})), seed=0, val=0.5, test=0.5)
    with pytest.raises(DataError, match="train split"):
        assign(manifest(rows({"a": 5}, split="test")), seed=0)


def test_a_share_of_a_split_that_is_given_is_said_to_change_nothing() -> None:
    given = [
        row._replace(split=split)
        for split in ("train", "val", "test")
        for row in rows({f"{split} a": 9, f"{split} b": 9})
    ]
    assert assign(manifest(given), seed=1, val=0.3, test=0.2).notes == (
        "--val 0.3 changes nothing: the val images are given.",
        "--test 0.2 changes nothing: the test images are given.",
    )
    assert assign(manifest(given), seed=1).notes == ()
