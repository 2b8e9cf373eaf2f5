"""What a network can do without training for it: at every point it answers the same, however it is run."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from vitrail.core.environment import compiler
from vitrail.infer.backends import Backend, BackendNetwork
from vitrail.infer.predictor import Predictor, Request
from vitrail.layers.elastic import read_point
from vitrail.layers.sdpa import Recorder


@pytest.fixture(scope="module")
def asked(trained, digits):
    """A model, and images of all classes, decoded."""
    predictor = Predictor(trained)
    files = [file for name in "0123" for file in sorted((digits / name).iterdir())[:4]]
    return predictor, [predictor.decoded(file) for file in files]


def prepared(asked, point):
    """Return the input at a point, and the logits of the network there."""
    predictor, pictures = asked
    ready = [predictor.ready(picture, point) for picture in pictures]
    logits = predictor.outputs(ready, Request(point))["logits"]
    return torch.stack([one.pixels for one in ready]), logits


def test_the_points_of_a_network_that_was_trained_for_one(asked):
    predictor, _ = asked
    names = [str(point) for point in predictor.dial]
    assert names[:2] == ["32px/patch8", "20px/merge7"]
    assert names[-4:] == ["32px/merge17", "32px/merge13", "32px/merge9", "32px/1"]
    assert len(names) == len(set(names)) == 17
    assert [read_point(name) for name in names] == list(predictor.dial)


def test_every_point_answers_otherwise_and_the_same_when_recorded(asked):
    """A recorder computes another softmax: where two pairs are alike to the last bits, another one may merge."""
    predictor, _ = asked
    answers = []
    for point in predictor.dial:
        images, logits = prepared(asked, point)
        assert images.shape == (16, 3, *point.size)
        with torch.no_grad():
            recorded = predictor.at(point)({"images": images}, Recorder())["logits"]
        torch.testing.assert_close(recorded, logits, rtol=0, atol=1e-4)
        answers.append(logits)
    for turn, one in enumerate(answers):
        assert all((one - other).abs().max() > 2e-4 for other in answers[:turn])
    assert torch.equal(answers[-1], prepared(asked, predictor.point)[1])


@pytest.mark.skipif(find_spec("openvino") is None, reason="pip install 'vitrail[export]'")
@pytest.mark.parametrize("name", ["32px/patch8", "20px/merge7", "24px/1", "28px/merge13", "32px/merge17"])
def test_openvino_at_a_point(asked, name):
    point = read_point(name)
    images, logits = prepared(asked, point)
    twin = BackendNetwork(asked[0].at(point), Backend(engine="openvino"), tuple(images.shape))
    torch.testing.assert_close(twin({"images": images})["logits"], logits, rtol=0, atol=1e-4)
    few = twin({"images": images[:3]})["logits"]  # a portion that is filled up
    torch.testing.assert_close(few, logits[:3], rtol=0, atol=1e-4)


@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")
def test_compiled_at_a_point(asked):
    point = read_point("20px/merge7")
    images, logits = prepared(asked, point)
    twin = BackendNetwork(asked[0].at(point), Backend(engine="compiled"), tuple(images.shape))
    torch.testing.assert_close(twin({"images": images})["logits"], logits, rtol=0, atol=1e-4)
