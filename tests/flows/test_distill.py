"""A student learns from a teacher; what is kept knows nothing of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from vitrail.core.errors import SettingError
from vitrail.data.batch import Batch
from vitrail.data.preprocess import Preprocess
from vitrail.infer.predictor import Predictor
from vitrail.layers.tokens import Features, FeatureSpec, Tokens
from vitrail.runs.run import open_run
from vitrail.tasks.base import Losses
from vitrail.tasks.classify.task import Classify
from vitrail.tasks.wrappers.distill import Distill
from vitrail.training.distillation import open_teacher

LABELS = ("0", "1", "2", "3")
QUICK = ("weights=none", "epochs=2", "batch=16", "micro=16", "precision=float32", "workers=0")


def batch_of(targets: list) -> Batch:
    count = len(targets)
    return Batch({"images": torch.zeros(count, 3, 2, 2)}, targets, tuple("abcde"[:count]))


def distilling(kind: str = "hard", **more: object) -> Distill:
    return Distill(LABELS, {"teacher": "somebody", "kind": kind, **more})


def learnt(task: Distill, batch: Batch, logits: torch.Tensor) -> Losses:
    """Return the losses of a batch that a network answers so."""
    return task.training_loss(lambda inputs: {"logits": logits}, batch, np.random.default_rng(0), 0.0)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_the_loss_is_the_papers(kind):
    logits, teacher = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(3))
    truth = [0, 1, 2, 3, 0]
    task = distilling(kind, share=0.3, temperature=2.0)
    task.taught_by(lambda images: {"logits": teacher})
    found = learnt(task, batch_of(truth), logits)
    own = F.cross_entropy(logits, torch.tensor(truth))
    if kind == "hard":
        other = F.cross_entropy(logits, teacher.argmax(1))
    else:
        p, q = (teacher / 2).softmax(1), (logits / 2).softmax(1)
        other = 4 * (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(found.total, 0.7 * own + 0.3 * other)
    torch.testing.assert_close(found.parts["cross_entropy"], 0.7 * own)
    torch.testing.assert_close(found.parts["teacher"], 0.3 * other)


def test_several_labels_are_taught_one_by_one():
    logits, teacher = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(3))
    task = distilling(task="multilabel", share=1.0)
    task.taught_by(lambda images: {"logits": teacher})
    found = learnt(task, batch_of([(0,), (1, 2), (), (3,), (0,)]), logits)
    expected = F.binary_cross_entropy_with_logits(logits, (teacher > 0).float())
    torch.testing.assert_close(found.total, expected)


def test_each_token_has_its_own_answer_and_the_mean_predicts():
    spec = FeatureSpec(6, strides=(8,), prefix=("cls", "dist"), pool="cls")
    task = distilling()
    head = task.head(spec)
    features = Features(Tokens(torch.randn(2, 7, 6), (1, 5), 2))
    said = head(features)
    torch.testing.assert_close(said["train.labels"], head.linear(features.tokens.x[:, 0]))
    torch.testing.assert_close(said["train.teacher"], head.dist(features.tokens.x[:, 1]))
    kept = Classify(LABELS).head(spec).eval()
    kept.load_state_dict(head.state_dict())
    answer = kept(features)
    assert answer.keys() == {"logits"}
    torch.testing.assert_close(answer["logits"], (said["train.labels"] + said["train.teacher"]) / 2)
    torch.testing.assert_close(task.probabilities(said), answer["logits"].softmax(-1))


def test_each_loss_reads_its_own_token():
    """In training a head with two answers gives both: the labels take the one and the teacher the other."""
    mean, own, other, teacher = torch.randn(4, 5, 4, generator=torch.Generator().manual_seed(3))
    task, truth = distilling(share=0.3), [0, 1, 2, 3, 0]
    task.taught_by(lambda images: {"logits": teacher})
    answer = {"logits": mean, "train.labels": own, "train.teacher": other}
    found = task.training_loss(lambda inputs: answer, batch_of(truth), np.random.default_rng(0), 0.0)
    torch.testing.assert_close(found.parts["cross_entropy"], 0.7 * F.cross_entropy(own, torch.tensor(truth)))
    torch.testing.assert_close(found.parts["teacher"], 0.3 * F.cross_entropy(other, teacher.argmax(1)))


def test_a_task_that_learns_in_its_own_way_is_not_wrapped():
    with pytest.raises(SettingError, match="does not support a teacher"):
        distilling(task="elastic")


def test_an_answer_of_three_axes_stays_as_it_is():
    """A wrapped task may answer (b, k, n); only a distilled network's two answers are averaged."""
    task = distilling()
    task.head(FeatureSpec(6, strides=(8,), prefix=("cls",), pool="cls"))
    output = {"logits": torch.randn(5, 4, 3)}
    torch.testing.assert_close(task.probabilities(output), task.inner.probabilities(output))


def test_nothing_is_learnt_without_a_teacher():
    with pytest.raises(SettingError, match="--teacher"):
        learnt(distilling(), batch_of([0]), torch.zeros(1, 4))


def test_answers_that_are_no_classes_cannot_be_distilled():
    task = distilling()
    task.taught_by(lambda images: {"logits": torch.zeros(1, 3)})
    with pytest.raises(SettingError, match=r"has shape \(3,\) and the student's \(4,\)\. .* equal shapes"):
        learnt(task, batch_of([0]), torch.zeros(1, 4))


def test_the_teacher_sees_with_its_own_eyes(trained, digits):
    """Another size and another normalisation of the student change nothing of what the teacher says."""
    predictor = Predictor(trained)
    picture = predictor.decoded(sorted((digits / "2").iterdir())[0])
    student = Preprocess(
        (8, 8), "squash", 1.0, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    )  # the digits are 8 x 8 pixels
    swapped = ("3", "1", "2", "0")
    logits = open_teacher(str(trained), swapped, student)(student.eval(picture)[0][None])["logits"]
    expected = predictor.outputs([predictor.ready(picture)])["logits"][:, [3, 1, 2, 0]]
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


def test_a_teacher_of_other_classes_is_refused(trained):
    with pytest.raises(SettingError, match="does not know owl"):
        open_teacher(str(trained), ("0", "owl"), Preprocess.for_size(32))
    with pytest.raises(SettingError, match="channels"):
        open_teacher(str(trained), LABELS, Preprocess.for_size(32, channels=1))


def test_a_network_of_timm_teaches(vitrail, tmp_path, digits):
    torch.manual_seed(0)
    theirs = timm.create_model("test_resnet", num_classes=4).eval()
    save_file(theirs.state_dict(), tmp_path / "a.safetensors")
    assert (
        vitrail(
            "weights", "add", tmp_path / "a.safetensors", "--name", "tiny", "--model", "test_resnet"
        ).returncode
        == 0
    )
    with (
        pytest.warns(UserWarning, match="in your order: 0, 1, 2"),
        pytest.warns(UserWarning, match="tiny do not state their preprocessing: ImageNet's mean"),
    ):
        teacher = open_teacher("tiny", LABELS, Preprocess.for_size(160))
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(teacher(images)["logits"], theirs(images), rtol=0, atol=1e-4)
    with pytest.raises(SettingError, match="4 other classes"):
        open_teacher("tiny", ("a", "b"), Preprocess.for_size(160))


def test_training_with_a_teacher(vitrail, trained, digits, tmp_path):
    out = tmp_path / "student"
    tiny = (
        "--model",
        "deit_ti16_distilled",
        "--network",
        "patch=8,width=48,depth=2,heads=3",
        "--imgsz",
        "32",
    )
    done = vitrail("train", digits, *tiny, *QUICK, "--teacher", trained, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    predictor = Predictor(out)
    assert (predictor.header.task["name"], predictor.task.labels) == ("classify", LABELS)
    tensors = load_file(out / "model.safetensors")
    assert tensors["head.linear.weight"].shape == tensors["head.dist.weight"].shape == (4, 48)
    assert not torch.equal(tensors["head.linear.weight"], tensors["head.dist.weight"])
    for shared in ("model.safetensors", "README.md", "report.html", "report.json"):
        assert str(trained).encode() not in (out / shared).read_bytes()
    steps = [event for event in open_run(out).history() if event["event"] == "step"]
    more = vitrail("train", "--resume", out, "--epochs", "1")
    assert more.returncode == 0, more.stderr
    assert len([e for e in open_run(out).history() if e["event"] == "step"]) > len(steps)


def test_a_student_follows_its_teacher(vitrail, trained, digits, tmp_path):
    """Labels alone against a teacher alone: the one that was taught answers more like the teacher."""
    recipe = tmp_path / "taught.yaml"
    recipe.write_text(
        json.dumps(
            {
                "model": {"name": "vit_digits"},
                "task": {"name": "distill", "settings": {"teacher": str(trained), "kind": "soft", "share": 1.0}},
                "training": {
                    "tune": "scratch", "epochs": 8, "batch": 8, "micro": 8, "lr": 0.002, "augment": "none",
                    "ema": 0.0, "precision": "float32", "workers": 0,
                },
            }
        )
    )  # fmt: skip
    done = vitrail("train", digits, "--recipe", recipe, "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    teacher, student, paths = (
        Predictor(trained),
        Predictor(tmp_path / "a"),
        sorted(digits.rglob("*.png"))[:40],
    )
    same = [a.label == b.label for a, b in zip(teacher(paths), student(paths), strict=True)]
    assert np.mean(same) > 0.7


def test_distill_wants_a_teacher(vitrail, digits):
    done = vitrail("train", digits, "--model", "vit_digits", "weights=none", "--distill", "soft")
    assert done.returncode == 1
    assert "--teacher" in done.stderr


@pytest.mark.parametrize("mixed", [False, True])
def test_the_binary_loss(mixed):
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(3))
    rows = F.one_hot(torch.tensor([0, 3, 1]), 4).float()
    truth = 0.6 * rows + 0.4 * rows.flip(0) if mixed else rows
    task = Classify(LABELS, {"loss": "bce"})
    p = logits.sigmoid()
    expected = -(truth * p.log() + (1 - truth) * (1 - p).log()).mean()
    found = task.loss({"logits": logits}, truth if mixed else [0, 3, 1]).total
    torch.testing.assert_close(found, expected)
    smooth = Classify(LABELS, {"loss": "bce", "smoothing": 0.1}).loss({"logits": logits}, [0, 3, 1]).total
    torch.testing.assert_close(smooth, F.binary_cross_entropy_with_logits(logits, rows * 0.9 + 0.025))


def test_training_with_the_binary_loss(vitrail, digits, tmp_path: Path):
    done = vitrail("train", digits, "--model", "vit_digits", *QUICK, "--loss", "bce", "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert Predictor(tmp_path / "a").task.settings.loss == "bce"
