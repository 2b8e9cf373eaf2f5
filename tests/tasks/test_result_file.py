"""A result is written as data, and every section comes back from it."""

from __future__ import annotations

import json

import pytest

from vitrail.core.errors import RunError
from vitrail.tasks.result import (
    Column,
    Curve,
    Gallery,
    Limits,
    Matrix,
    Number,
    Overlays,
    Reliability,
    Result,
    Scope,
    Section,
    Shot,
    Table,
    TableSection,
)
from vitrail.tasks.result_file import result_from_dict, result_to_dict

SHOT = Shot("fern/1.jpg", "fern", "moss", 0.75, False)
SECTIONS = (
    TableSection(
        "Class by class",
        Table(
            (Column("class"), Column("right", right=True, spread=True)), (("fern", Number(0.5, 0.25, 0.75)),)
        ),
        "a note",
    ),
    Matrix("Confusion", ("fern", "moss"), ((1, 1), (0, 2)), {(0, 1): (SHOT,), (1, 1): (SHOT, SHOT)}),
    Gallery("Mistakes", "look", (SHOT,), explain=False),
    Overlays("Drawn", "look", (Shot("1", "", "", caption="0.5 IoU"),)),
    Curve("A curve", {"_": ((0.0, 1.0), (1.0, 0.5))}, "x", "y"),
    Reliability("Calibration", {"ece_after": 0.01, "temperature": 1.5, "bins": ()}),
    Limits("", ("a limit",)),
)


def test_every_section_comes_back():
    result = Result(
        "accuracy", {"accuracy": Number(0.5, name="right", fact="right")}, "50 % right", (), SECTIONS
    )
    again = result_from_dict(json.loads(json.dumps(result_to_dict(result))))
    assert again == result


def test_a_section_of_an_own_kind_is_left_out():
    class Own(Section):
        kind = "own"

    result = Result("x", {}, "", (), (Own("mine"), SECTIONS[2]))
    assert result_from_dict(result_to_dict(result)).sections == (SECTIONS[2],)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"main": "x", "verdict": "", "numbers": {}, "sections": [{"_": "Unknown", "values": []}]},
        {"main": "x", "verdict": "", "numbers": {}, "sections": [{"_": "Shot", "values": []}]},
    ],
)
def test_a_broken_one_is_refused_in_a_sentence(values):
    with pytest.raises(RunError, match=r"Update vitrail, or open report\.html"):
        result_from_dict(values)


def test_one_image_is_counted_as_one():
    assert Scope("validation images").counted(1) == "1 validation image"
    assert Scope().counted(1200) == "1,200 images it never saw"
