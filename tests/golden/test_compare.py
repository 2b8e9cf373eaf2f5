"""The comparison of two commits: what counts as equal, what a rename table does, what may differ by name."""

from __future__ import annotations

import pytest
import torch

from bench import golden
from bench.golden_compare import differences, flat, translated

NONE = {"parameters": {}, "groups": {}, "keys": {}, "columns": {}, "options": {}, "tasks": {}}


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.tensor([1.0]), torch.tensor([1.0]).nextafter(torch.tensor([2.0]))),
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (1.0, 1.0 + 3e-12),
        ("a", "b"),
        (True, 1),
        (None, 0),
    ],
)
def test_what_differs_is_found(a, b):
    found = differences({"x": a}, {"x": b})
    assert [one.name for one in found] == ["x"]
    assert differences({"x": a}, {"x": a}) == []


def test_what_is_equal_enough():
    nan = torch.tensor([float("nan"), 1.0])
    assert differences({"map": nan}, {"map": nan.clone()}) == []
    assert differences({"score": 0.5}, {"score": 0.5 + 1e-13}) == []
    assert differences({"many": 1e6}, {"many": 1e6 * (1 + 1e-13)}) == []


def test_what_only_one_side_has_is_a_difference():
    found = differences({"a": 1, "b": 2}, {"b": 2, "c": 3})
    assert [(one.name, one.before, one.after) for one in found] == [
        ("a", "1", "not there"),
        ("c", "not there", "3"),
    ]


def test_the_largest_gap_is_told():
    found = differences({"w": torch.zeros(3)}, {"w": torch.tensor([0.0, 0.25, -0.5])})
    assert found[0].apart == 0.5


def test_clocks_are_left_out():
    report = {
        "seconds": 3.2,
        "points": [{"gmacs": 1, "images_per_second": 9.0}],
        "phases": {"fit": 2},
        "none": [],
    }
    assert flat(report) == {"points.0.gmacs": 1, "none": []}


def test_parameters_are_renamed_by_the_longest_prefix():
    table = NONE | {"parameters": {"head.": "heads.main.", "head.linear.": "heads.linear."}}
    old = {"head.linear.weight": 1, "head.norm": 2, "encoder.head.bias": 3}
    new = {"heads.linear.weight": 1, "heads.main.norm": 2, "encoder.head.bias": 3}
    assert translated("weights", old, new, table) == new
    assert translated("weights", new, new, table) == new, "a commit after the change is compared with itself"


def test_keys_columns_and_tasks_are_renamed():
    table = NONE | {
        "keys": {"test.map": "test.mean_ap", "*.probability": "*.chance"},
        "columns": {"label": "target"},
        "tasks": {"classify_multi": "multilabel"},
        "options": {"--imgsz": "--size"},
    }
    new = {"test.mean_ap.value": 0.5, "task": "multilabel", "reproduce": "train --size 3"}
    old = {"test.map.value": 0.5, "task": "classify_multi", "reproduce": "train --imgsz 3"}
    assert translated("report", old, new, table) == new
    assert translated("predictions", {"cat.probability": 1.0}, {"cat.chance": 1.0}, table) == {
        "cat.chance": 1.0
    }
    cells = {"0 a.png · target": "cat", "0 a.png · path": "a.png"}
    assert (
        translated("manifest", {"0 a.png · label": "cat", "0 a.png · path": "a.png"}, cells, table) == cells
    )


def test_a_word_that_did_not_change_is_no_rename():
    table = NONE | {"tasks": {"elastic": "several_costs"}}
    same = {"note": "an elastic network"}
    assert translated("report", same, same, table) == same


def test_allowed_differences_are_told_and_do_not_fail(monkeypatch, capsys):
    old, new = {"task": "a", "loss": 1.0}, {"task": "b", "loss": 2.0}
    monkeypatch.setattr(golden, "ALLOWED", {("unlabelled", "report/task"): "finding 2"})
    row = golden._row("unlabelled", "report", old, new)
    assert not golden.show([row])
    told = capsys.readouterr().out
    assert "allowed    unlabelled, report/task: 'a' → 'b' – finding 2" in told
    assert "DIFFERENT  unlabelled, report/loss: 1.0 → 2.0 (apart by 1)" in told
    assert golden.show([golden._row("unlabelled", "report", {"task": "a"}, {"task": "b"})])
    assert not golden.show([golden._row("vit", "report", {"task": "a"}, {"task": "b"})])


def test_what_neither_side_has_is_no_equality(capsys):
    assert not golden.show([golden._row("vit", "logits", {}, {})])


def test_what_a_run_needs_is_run_too():
    assert golden._with_needs(["distilled"]) == ["vit", "distilled"]
