"""Label sets and "none of these" of a classification: what is answered, promised and refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vitrail.core.errors import SettingError
from vitrail.data.batch import Geometry
from vitrail.data.far_images import KINDS, SIDE, far_images
from vitrail.data.manifest import Row
from vitrail.tasks.abstention import Abstention, DistancePart
from vitrail.tasks.ask import asked_of
from vitrail.tasks.base import Ask
from vitrail.tasks.classify.evaluation import from_details
from vitrail.tasks.classify.task import Classify
from vitrail.tasks.multilabel.task import MultiLabel
from vitrail.tasks.result_file import result_from_dict, result_to_dict

AT = [Geometry((1, 1), (1, 1), (0.0, 0.0, 1.0, 1.0))]
PART = DistancePart(place="last", width=3, relative=False)
LABELS = ("a", "b", "c")


def task(counts=(50, 45, 5), novelty=199):
    """Label scores 0.02, 0.04 … of each class, and novelty scores 0, 1, …"""
    one = Classify(LABELS)
    scores = tuple(tuple(0.02 * (i + 1) for i in range(count)) for count in counts)
    one.abstention = Abstention(
        parts=(PART,), classes=3, novelty=tuple(map(float, range(novelty))), label_scores=scores
    )
    return one


def logits(*probabilities):
    return torch.tensor([probabilities]).log()


def test_an_unusual_image_is_none_of_these():
    one, output = task(), {"logits": logits(0.7, 0.2, 0.1), "novelty": torch.tensor([500.0])}
    [found] = one.decode(output, AT, Ask())
    assert (found.none_of_these, found.unlike) == (True, pytest.approx(199 / 200))
    assert str(found) == "none of these (99.5%), most like a 70.0%"
    assert found.to_dict()["none_of_these"] is True
    assert found.rows()[0]["unlike"] == 0.995
    [usual] = one.decode({**output, "novelty": torch.tensor([100.5])}, AT, Ask())
    assert (usual.none_of_these, str(usual)) == (False, "a 70.0%")
    assert usual.unlike == pytest.approx(101 / 200)


def test_a_file_without_a_score_answers_as_before():
    [found] = Classify(LABELS).decode({"logits": logits(0.7, 0.2, 0.1)}, AT, Ask())
    assert found.none_of_these is None
    assert set(found.to_dict()) == {"label", "probability", "top"}
    assert Classify(LABELS).outputs == {"logits": ("class",)}


def test_one_in_twenty_known_images_is_taken_for_none_of_these():
    scores = torch.arange(199).float()[:, None]
    output = {"logits": logits(0.7, 0.2, 0.1).expand(199, 3), "novelty": scores[:, 0]}
    found = task().decode(output, AT * 199, Ask())
    assert sum(one.none_of_these for one in found) == 9


def test_a_set_holds_what_cannot_be_ruled_out():
    """Of 100 scores up to 1.0, the 96th is the limit: exp(-0.92) is the least probability in a set."""
    one = task()
    [found] = one.decode({"logits": logits(0.5, 0.41, 0.09)}, AT, Ask(sets=0.05))
    assert found.label_set == ("a", "b")
    assert found.to_dict()["set"] == ["a", "b"]
    assert found.rows()[0]["set"] == "a|b"
    assert str(found) == "a 50.0%, set: a, b"
    [empty] = one.decode({"logits": logits(0.34, 0.33, 0.33)}, AT, Ask(sets=0.05))
    assert empty.label_set == ()
    assert str(empty).endswith("set: empty, none of these")


def test_sets_grow_with_the_promise():
    one, output = task(), {"logits": logits(0.62, 0.37, 0.01)}
    sizes = [len(one.decode(output, AT, Ask(sets=error))[0].label_set) for error in (0.9, 0.3, 0.02)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_each_class_has_its_own_limit_where_it_has_images():
    one = task(counts=(60, 60, 39))
    scores = list(one.abstention.label_scores)
    scores[1] = tuple(0.001 * (i + 1) for i in range(60))
    one.abstention = one.abstention.model_copy(update={"label_scores": tuple(scores)})
    output = {"logits": logits(0.45, 0.5, 0.05)}
    [together] = one.decode(output, AT, Ask(sets=0.05))
    [alone] = one.decode(output, AT, Ask(sets=0.05, each_class=True))
    assert together.label_set == ("b", "a")
    assert alone.label_set == ("a",), "b is always very probable where it is right"
    remarks = one.remarks(Ask(sets=0.05, each_class=True), novel=False)
    assert any("No promise for 1 class alone" in line and "c" in line for line in remarks)


@pytest.mark.parametrize(
    ("made", "words", "message"),
    [
        (
            task(counts=(5, 5, 5)),
            {"sets": 0.05},
            "at least 19 validation images, and this model had 15.*--sets 0.063",
        ),
        (task(), {"sets": 0.0}, "share of wrong sets"),
        (task(), {"sets": 1.5}, "share of wrong sets"),
        (Classify(LABELS), {"sets": 0.05}, "has no label sets"),
        (MultiLabel(LABELS), {"sets": 0.05}, "The task multilabel has no label sets"),
        (task(), {"each_class": True}, "Add --sets"),
    ],
)
def test_what_cannot_be_promised_is_refused(made, words, message):
    with pytest.raises(SettingError, match=message):
        asked_of(made, None, **words)


def test_the_error_that_is_proposed_can_be_promised():
    one = task(counts=(5, 5, 5))
    assert asked_of(one, None, 0.063).sets == 0.063


def test_a_proof_sees_the_score():
    one = task()
    output = {"logits": logits(0.7, 0.2, 0.1), "novelty": torch.tensor([250.0])}
    found = one.fingerprint(output)
    assert found.shape == (1, 4)
    other = {**output, "novelty": torch.tensor([251.0])}
    assert (one.fingerprint(other) - found).abs().max() > 1e-4, "also far from the limit"
    assert ((found > 0) & (found < 1)).all()


def test_an_answer_that_becomes_none_of_these_does_not_agree():
    one = task()
    output = {"logits": logits(0.7, 0.2, 0.1), "novelty": torch.tensor([150.0])}
    assert one.agree(output, output).tolist() == [True]
    assert one.agree(output, {**output, "novelty": torch.tensor([250.0])}).tolist() == [False]
    near = {**output, "novelty": torch.tensor([189.01])}, {**output, "novelty": torch.tensor([188.99])}
    assert one.agree(*near).tolist() == [True], "rounding at the limit"


def test_sets_of_a_thousand_classes_do_not_change_the_proof_of_their_probabilities():
    one = Classify([str(i) for i in range(5000)])
    one.abstention = Abstention(parts=(PART,), classes=3, novelty=tuple(map(float, range(19))))
    found = one.fingerprint({"logits": torch.randn(2, 5000), "novelty": torch.zeros(2)})
    assert found.shape[1] <= 4096


def evaluated(one, count=240):
    draw = np.random.default_rng(0)
    truth = np.arange(count) % 3
    rows = [Row(f"{i:03}", "", target=LABELS[truth[i]]) for i in range(count)]
    output = {
        "logits": torch.from_numpy(np.eye(3)[truth] * 2 + draw.normal(size=(count, 3))).float(),
        "novelty": torch.from_numpy(draw.uniform(0, 199, count)).float(),
    }
    evaluation = one.evaluation()
    evaluation.update(rows, output, truth.tolist(), AT * count)
    return evaluation


def test_a_report_says_what_is_noticed_and_what_sets_deliver():
    result = evaluated(task()).result()
    found = result.details["abstention"]
    assert found["false_alarms"]["low"] < 0.05 < found["false_alarms"]["high"]
    assert found["sets"]["promise"]["images"] == 100
    assert found["sets"]["classes"]["c"]["promise"] is None
    assert found["sets"]["classes"]["a"]["right"]["value"] > 0.8
    lines = [section.line for section in result.sections]
    assert any(line.startswith("none of these: ") for line in lines)
    assert any("promised 95 %, this file delivers" in line for line in lines)
    again = from_details(result.details, result.verdict)
    kinds = [section.heading for section in again.sections]
    assert "None of these" in kinds
    assert [one.heading for one in result_from_dict(result_to_dict(result)).sections][-3:] == kinds[-3:]


def test_coverage_is_counted_as_sets_are_answered():
    one = task()
    evaluation = evaluated(one)
    result = evaluation.result().details["abstention"]["sets"]
    output = {"logits": torch.from_numpy(evaluation.kept["logits"])}
    answers = one.decode(output, AT * 240, Ask(sets=0.05))
    right = [LABELS[t] in found.label_set for t, found in zip(evaluation.truth, answers, strict=True)]
    assert result["right"]["value"] == pytest.approx(np.mean(right), abs=1e-6)
    assert result["labels"] == pytest.approx(np.mean([len(found.label_set) for found in answers]), abs=1e-4)


def test_a_report_without_a_score_says_why():
    one = task()
    one.abstention = Abstention(reason="12 validation images are too few", label_scores=((0.1,),) * 3)
    sections = {section.heading: section for section in evaluated(one).result().sections}
    assert "12 validation images are too few" in sections["None of these"].note
    assert "19 are needed" in sections["Label sets (--sets)"].note


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_other_images_are_the_same_on_every_call(kind, channels):
    found, again = far_images(kind, 9, channels), far_images(kind, 9, channels)
    assert [one.shape for one in found] == [(SIDE, SIDE, channels)] * 9
    assert all(one.dtype == np.uint8 and one.std() > 1 for one in found)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    assert len({one.tobytes() for one in found}) == 9


def test_the_limit_of_a_set_is_a_cross_entropy():
    one = task()
    [[score, *_]] = one.nonconformity({"logits": logits(0.25, 0.5, 0.25)}).tolist()
    assert score == pytest.approx(math.log(4))
