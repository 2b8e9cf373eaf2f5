"""The draft: cached features, folds without leaks, a head equal to the network's, and a fine-tune from it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vitrail.core.errors import SettingError, WeightsError
from vitrail.data.prepare import prepare
from vitrail.data.preprocess import Preprocess
from vitrail.infer.backends import PLAIN
from vitrail.infer.predictor import Predictor
from vitrail.models.factory import create_encoder, describe
from vitrail.runs.train_options import TrainOptions
from vitrail.tasks.classify.probe import ClassProbe
from vitrail.training import linear_probe
from vitrail.training.feature_cache import Frozen
from vitrail.training.fit import resume, train
from vitrail.training.linear_probe import fit, fit_head, out_of_fold


@pytest.fixture(scope="module")
def digits(some_digits):
    """Twelve images of each of five digits."""
    return some_digits("01234", 12)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file with weights in our own layout, and a separate cache."""
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    encoder = create_encoder("vit_digits")
    path = tmp_path / "given.safetensors"
    header = {"encoder": describe(encoder), "source": "timm", "licence": "apache-2.0"}
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    save_file(tensors, path, metadata={"vitrail_encoder": json.dumps(header)})
    return path


def clusters(count=60, classes=3, width=7, seed=0):
    """Vectors in well separated clusters."""
    draw = np.random.default_rng(seed)
    truth = np.arange(count) % classes
    vectors = draw.normal(size=(count, width)) * 0.3 + np.eye(classes, width)[truth] * 3
    return vectors.astype(np.float32), truth


def test_features_are_computed_once_and_new_pictures_only_cost_themselves(digits, weights, monkeypatch):
    manifest = prepare(digits).manifest
    rows = manifest.rows()
    maker = Frozen(create_encoder("vit_digits"), Preprocess.for_size(32), torch.device("cpu"))
    asked = []
    compute = Frozen.compute
    monkeypatch.setattr(
        Frozen, "compute", lambda self, m, r, plan: asked.append(len(r)) or compute(self, m, r, plan)
    )
    first = maker.vectors(manifest, rows[:40])
    again = maker.vectors(manifest, rows)
    assert asked == [40, len(rows) - 40]
    assert np.array_equal(first, again[:40])
    maker.vectors(manifest, rows)
    assert len(asked) == 2
    other = Frozen(create_encoder("vit_digits"), Preprocess.for_size(32), torch.device("cpu"))
    usual = maker.backends.plans[0]
    assert other.path(usual) != maker.path(usual), "other weights are another cache"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_processes_and_threads_read_the_same_for_a_gpu(digits, weights, monkeypatch):
    manifest = prepare(digits).manifest
    maker = Frozen(create_encoder("vit_digits"), Preprocess.for_size(32), torch.device("cuda"))
    rows = manifest.rows()
    first = [*maker.compute(manifest, rows, maker.usual)]
    monkeypatch.setattr("vitrail.training.feature_cache.FEW", 1)
    second = [*maker.compute(manifest, rows, maker.usual)]
    assert [name for names, _ in first for name in names] == [name for names, _ in second for name in names]
    np.testing.assert_allclose(
        np.concatenate([x for _, x in first]), np.concatenate([x for _, x in second]), atol=0.02
    )


def test_a_broken_cache_is_computed_again(digits, weights):
    manifest = prepare(digits).manifest
    maker = Frozen(create_encoder("vit_digits"), Preprocess.for_size(32), torch.device("cpu"))
    first = maker.vectors(manifest, manifest.rows()[:5])
    maker.path(maker.backends.plans[0]).write_bytes(b"broken")
    assert np.array_equal(maker.vectors(manifest, manifest.rows()[:5]), first)


def test_the_head_is_logistic_regression_on_scaled_features():
    from sklearn.linear_model import LogisticRegression

    vectors, truth = clusters()
    vectors *= np.linspace(0.1, 40, 7, dtype=np.float32)
    head = fit(ClassProbe("abc"), vectors, truth, 0.3)
    scaled = (vectors - vectors.mean(0)) / (vectors.std(0) + 1e-6)
    expected = LogisticRegression(C=0.3, max_iter=200, tol=1e-3).fit(scaled, truth).decision_function(scaled)
    assert np.allclose(head.logits(vectors), expected, atol=1e-3)


def test_two_classes_and_missing_classes_have_a_head_too():
    vectors, truth = clusters(classes=2)
    assert (fit(ClassProbe("ab"), vectors, truth, 0.3).logits(vectors).argmax(1) == truth).mean() > 0.95
    assert (
        fit(ClassProbe("abcde"), vectors, truth + 2, 0.3).logits(vectors).argmax(1) == truth + 2
    ).mean() > 0.95
    assert (fit(ClassProbe("abc"), vectors, np.ones_like(truth), 0.3).logits(vectors).argmax(1) == 1).all()


def test_folds_never_split_a_group_and_score_everybody_once():
    """Random labels that are equal within groups: only a leak could predict them."""
    draw = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 6)
    truth = draw.integers(0, 3, 30)[groups]
    vectors = (draw.normal(size=(30, 61))[groups] + 0.01 * draw.normal(size=(180, 61))).astype(np.float32)
    found = out_of_fold(ClassProbe("abc"), vectors, truth, groups)
    assert (found.logits.argmax(1) == truth).mean() < 0.6
    alone = out_of_fold(ClassProbe("abc"), vectors, truth, np.arange(180))
    assert (alone.logits.argmax(1) == truth).mean() > 0.95, "without groups the twins tell"
    assert (np.abs(found.logits).sum(1) > 0).all()


def test_the_network_answers_as_its_head_on_cached_features(digits, weights, tmp_path):
    run = train(digits, TrainOptions(weights=str(weights), out=str(tmp_path / "run"), imgsz="32"))
    report = json.loads(run.report_path.read_text())
    assert report["draft"]
    assert report["test"]["pictures"] == 60
    assert report["weights"] == "given"
    assert report["licence"] == "apache-2.0"
    assert str(tmp_path) not in run.report_path.read_text()
    assert report["full_seconds"] > 0
    assert 0 <= report["gain_from_twice"] < 1
    drafted = next(event for event in run.history() if event["event"] == "drafted")
    assert drafted["features"] in {"bf16", "float32"}
    assert (run.folder / "doubts.csv").read_text().startswith("id,label,looks_like,probability")
    predictor = Predictor(run.folder)
    rows = prepare(digits).manifest.rows()
    maker = Frozen(predictor.network.encoder, predictor.preprocess, torch.device("cpu"))
    computed = maker.compute(prepare(digits).manifest, rows, PLAIN)
    vectors = np.concatenate([some for _, (some, _) in computed])
    linear = predictor.network.head.linear
    expected = torch.from_numpy(vectors) @ linear.weight.T + linear.bias
    found = predictor.outputs([predictor.ready(digits / row.path) for row in rows])
    assert torch.allclose(found["logits"], expected, atol=1e-3)


def test_swapped_labels_are_doubted_and_right_ones_are_not():
    from vitrail.data.manifest import Row
    from vitrail.evaluate.cross_validation import Answered, score_by_folds
    from vitrail.runs.network import build_task

    vectors, truth = clusters(300, 3)
    labels = truth.copy()
    labels[:5] = (labels[:5] + 1) % 3
    task = build_task("classify", ["0", "1", "2"], {})
    found = out_of_fold(task.probe, vectors, labels, np.arange(300))
    rows = [Row(str(i), "", "", str(labels[i])) for i in range(300)]
    folded = score_by_folds(task, "classify", Answered(rows, labels.tolist(), found.logits, found.folds))
    suspects = {one.row.id for one in task.probe.doubts(folded.evaluation)}
    assert suspects == {"0", "1", "2", "3", "4"}


@pytest.mark.parametrize("tune", ["head", "full"])
def test_a_fine_tune_starts_from_the_head_that_saw_only_its_training_pictures(
    tune, digits, weights, tmp_path
):
    before = {k: v.clone() for k, v in tensors_of(weights).items()}
    options = TrainOptions(
        weights=str(weights), tune=tune, epochs=1, batch=8, micro=8, precision="float32", imgsz="32",
        augment="none", smoothing=0.0, mixup=0.0, drop_path=0.0, workers=0, out=str(tmp_path / tune),
    )  # fmt: skip
    run = train(digits, options)
    predictor = Predictor(run.folder)
    moved = [k for k, v in predictor.network.encoder.state_dict().items() if not torch.equal(v, before[k])]
    assert bool(moved) == (tune == "full")
    assert run.recipe().training.tune == tune
    first = next(event for event in run.history() if event["event"] == "step")
    assert first["loss"] < np.log(5), "a fresh head would begin at ln 5 or above"


def tensors_of(path):
    from safetensors.torch import load_file

    return {k.removeprefix("encoder."): v for k, v in load_file(path).items()}


def test_more_epochs_on_a_finished_run_warm_up_anew(digits, weights, tmp_path):
    options = TrainOptions(
        model="vit_digits", weights="none", epochs=2, batch=8, micro=8, precision="float32", workers=0,
        out=str(tmp_path / "run"),
    )  # fmt: skip
    run = train(digits, options)
    steps = [event for event in run.history() if event["event"] == "step"]
    resume(run.folder, more=2)
    after = [event for event in run.history() if event["event"] == "step"][len(steps) :]
    assert len(after) == len(steps)
    assert next(event["step"] for event in after) == steps[-1]["step"] + 1
    rates = [event["lr"] for event in after]
    peak = run.recipe().training.lr / 3
    assert rates[0] < max(rates) <= peak + 1e-12
    assert rates[-1] < max(rates) / 2
    kinds = [event["event"] for event in run.history()]
    assert kinds.count("lengthened") == 1


def test_layer_decay_gives_early_blocks_less():
    from vitrail.runs.network import create_model
    from vitrail.training.optim import parameter_groups

    network = create_model("vit_digits", 3)
    share = {id(p): group["share"] for group in parameter_groups(network, 0.05, 0.5) for p in group["params"]}
    by_name = {name: share[id(p)] for name, p in network.named_parameters()}
    assert by_name["head.linear.weight"] == 1.0
    assert by_name["encoder.norm.weight"] == 1.0
    blocks = [by_name[f"encoder.blocks.{i}.norm1.weight"] for i in range(4)]
    assert blocks == [0.5 ** (4 - i) for i in range(4)]
    assert by_name["encoder.embed.project.weight"] == 0.5**5
    assert by_name["encoder.position.table"] == 0.5**5


def test_never_a_silent_start_from_noise(digits, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="--weights none"):
        train(digits, TrainOptions(out=str(tmp_path / "run")))
    with pytest.raises(WeightsError, match="--weights none"):
        train(digits, TrainOptions(model="vit_s16", out=str(tmp_path / "run")))
    with pytest.raises(SettingError, match="--tune full"):
        train(digits, TrainOptions(weights="none", tune="full", out=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_balance_weighs_or_draws(digits, weights, tmp_path):
    from vitrail.data.loader import Order

    drawn = Order(100, 50, 0, tuple([0.9 / 10] * 10 + [0.1 / 90] * 90)).at(0)
    assert (drawn < 10).mean() > 0.7
    options = TrainOptions(
        model="vit_digits", weights="none", epochs=1, batch=8, micro=8, precision="float32", workers=0,
        balance="loss", out=str(tmp_path / "run"),
    )  # fmt: skip
    run = train(digits, options)
    assert len(run.recipe().task.settings["class_weights"]) == 5


def test_several_labels_weigh_what_is_present_against_what_is_not(tmp_path):
    import torch.nn.functional as F

    from vitrail.data.manifest import Manifest, Row
    from vitrail.runs.network import build_task
    from vitrail.runs.recipe import compose
    from vitrail.training.fit import with_class_weights

    rows = [Row(str(i), f"{i}.png", "", "a|b" if i < 2 else "a", split="train") for i in range(10)]
    manifest = Manifest.of(rows, tmp_path)
    own = {
        "model": {"name": "vit_digits", "imgsz": (32, 32)},
        "data": {},
        "task": {"name": "multilabel"},
        "training": {"balance": "loss"},
    }
    settings = with_class_weights(compose("scratch_small", own), manifest).task.settings
    assert settings["class_weights"] == [0.0, 4.0]
    task = build_task("multilabel", ["a", "b"], {"class_weights": settings["class_weights"]})
    output = torch.randn(3, 2)
    expected = F.binary_cross_entropy_with_logits(
        output, torch.ones(3, 2), pos_weight=torch.tensor([0.0, 4.0])
    )
    assert torch.allclose(task.loss({"logits": output}, [(0, 1)] * 3).total, expected)


def test_the_strengths_are_tried_from_strong_to_weak():
    assert list(linear_probe.STRENGTHS) == sorted(linear_probe.STRENGTHS)
    vectors, truth = clusters()
    assert fit_head(ClassProbe("abc"), vectors, truth, np.arange(60)).strength in linear_probe.STRENGTHS
