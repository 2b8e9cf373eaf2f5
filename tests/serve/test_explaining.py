"""Explanations for requests: the default method, what is refused, and the picture."""

from __future__ import annotations

import pytest
from test_same_answers import POINTS

from vitrail.infer.predictor import load
from vitrail.serve.explaining import explain, methods_of
from vitrail.serve.messages import Picture, Question


@pytest.fixture(scope="module")
def predictor(dialled):
    return load(dialled)


@pytest.fixture
def picture(pictures):
    return Picture("a.png", pictures[0].read_bytes())


def test_the_methods_that_fit_are_named_the_usual_one_first(predictor):
    known = methods_of(predictor)
    assert known[0] == "relevance"
    assert "attention" not in known


@pytest.mark.parametrize("point", [POINTS[0], POINTS[2]])
def test_an_explanation_has_a_grid_a_point_and_a_picture(predictor, picture, point):
    shown = explain(predictor, Question(picture, "", None, point))
    assert not shown.refused
    assert shown.plain["name"] == "a.png"
    assert shown.plain["point"] == point
    assert shown.png.startswith(b"\x89PNG")


def test_a_class_may_be_named(predictor, picture):
    one, other = (explain(predictor, Question(picture, "relevance", of)).plain for of in ("cat", "dog"))
    assert one != other


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"method": "vitrail.cli.main:run"}, "relevance"),
        ({"method": "attention"}, "relevance"),
        ({"of": "unicorn"}, "unicorn"),
        ({"point": "95px/1"}, "95px/1"),
    ],
)
def test_what_is_not_there_is_refused_in_a_sentence(predictor, picture, words, said):
    shown = explain(predictor, Question(picture, **{"method": "", **words}))
    assert said in shown.refused
    assert not shown.png


def test_a_broken_image_is_refused(predictor):
    shown = explain(predictor, Question(Picture("broken.png", b"no image"), ""))
    assert "broken.png" in shown.refused
