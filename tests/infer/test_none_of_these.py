"""A model file with "none of these" and label sets: opened, proven, computed by backends and exported files alike."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vitrail.core.errors import RunError, SettingError
from vitrail.data.far_images import far_images
from vitrail.data.manifest import Row
from vitrail.data.preprocess import Preprocess
from vitrail.evaluate.abstention import fit_abstention, independent, of_run, some_of_each
from vitrail.explainers.explanation import explain
from vitrail.export import agreement
from vitrail.export.export import export
from vitrail.infer.autotune import choose_backend
from vitrail.infer.backends import PLAIN, Backend, BackendNetwork
from vitrail.infer.predictor import Predictor, Request, load
from vitrail.reports.fit_abstention import store
from vitrail.runs.model_file import read_model
from vitrail.runs.network import build_network, build_task, create_model, without_reader
from vitrail.studio.answers import answers
from vitrail.studio.pictures import Picture

LABELS = ("red", "green", "blue")


def coloured(place, draw):
    """Return an image with much of one colour, and noise."""
    image = draw.integers(0, 90, (40, 36, 3), dtype=np.uint8)
    image[..., place] += np.uint8(draw.integers(80, 160))
    return image


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    root, draw, made = tmp_path_factory.mktemp("colours"), np.random.default_rng(0), []
    for i in range(150):
        Image.fromarray(coloured(i % 3, draw)).save(root / f"{i}.png")
        made.append(Row(f"{i}", f"{i}.png", target=LABELS[i % 3]))
    return root, made[:60], made[60:]


@pytest.fixture(scope="module")
def plain(model_file):
    torch.manual_seed(0)
    task = build_task("classify", LABELS, {})
    network = build_network(create_model("vit_digits", 3).encoder, task).eval()
    with torch.no_grad():
        network.head.linear.weight *= 20
    return model_file("vit_digits", network, task, Preprocess.for_size(32))


@pytest.fixture(scope="module")
def abstaining(plain, rows, tmp_path_factory):
    root, train, held = rows
    path = tmp_path_factory.mktemp("abstaining") / "model.safetensors"
    predictor = Predictor(plain, "cpu")
    store(path, predictor, fit_abstention(of_run(predictor, train, held, root, "colours")))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


def images(count=12):
    draw = np.random.default_rng(7)
    return [coloured(i % 3, draw) for i in range(count)] + far_images("noise", 4)


def test_other_images_are_none_of_these_and_known_ones_are_not(abstaining):
    predictor = Predictor(abstaining, "cpu")
    found = predictor.predict(images())
    assert [one.none_of_these for one in found[12:]] == [True] * 4
    assert sum(one.none_of_these for one in found[:12]) <= 2
    assert str(found[-1]).startswith("none of these (")


def test_classes_and_probabilities_are_to_the_bit_those_of_the_file_without_it(plain, abstaining):
    one, other = Predictor(plain, "cpu"), Predictor(abstaining, "cpu")
    ready = [one.ready(image) for image in images()]
    assert torch.equal(one.outputs(ready)["logits"], other.outputs(ready)["logits"])


def test_sets_are_asked_for_in_python(plain, abstaining):
    [found] = Predictor(abstaining, "cpu").predict(images()[0], sets=0.1)
    assert found.label_set is not None
    assert set(found.label_set) <= set(LABELS)
    with pytest.raises(SettingError, match="has no label sets"):
        Predictor(plain, "cpu").predict(images()[0], sets=0.1)


def test_the_halfway_vectors_cost_no_prefix(abstaining):
    """A head that reads the class token skips the patches of the last block, whether or not a block is read halfway."""
    network = Predictor(abstaining, "cpu").network
    assert network.head.reads == "prefix"
    pixels = torch.randn(2, 3, 32, 32)
    seen = []
    network.encoder.blocks[-1].register_forward_hook(lambda _, __, out: seen.append(out.x.shape[1]))
    with torch.inference_mode():
        network({"images": pixels})
    assert seen == [1]
    assert network.blocks == (2,)


def test_a_file_whose_means_were_changed_is_refused(abstaining, tmp_path):
    header, tensors = read_model(abstaining)
    name = next(key for key in tensors if key.endswith("means"))
    tensors[name] = tensors[name] + 0.5
    save_file(tensors, tmp_path / "changed.safetensors", metadata={"vitrail": header.model_dump_json()})
    with pytest.raises(RunError, match="does not predict what it predicted"):
        Predictor(tmp_path / "changed.safetensors", "cpu")


def test_a_file_of_before_still_opens(plain):
    assert "abstention" not in read_model(plain).header.task
    assert Predictor(plain, "cpu").predict(images()[0])[0].none_of_these is None


@pytest.mark.parametrize(
    "plan",
    [PLAIN, Backend("bf16"), Backend("float32", engine="openvino")],
)
def test_backends_compute_the_score_in_float32_from_their_vectors(abstaining, plan):
    predictor = Predictor(abstaining, "cpu")
    core, reader = without_reader(predictor.network)
    assert reader is predictor.network.reader
    assert core.outputs == ("logits", *(f"vectors.{place}" for place in reader.places))
    network = BackendNetwork(predictor.network, plan, (8, 3, 32, 32))
    ready = [predictor.ready(image) for image in images()]
    exact = predictor.outputs(ready)
    found = predictor.outputs(ready, Request(predictor.point, network))
    near = 1e-3 if plan.precision == "float32" else 0.3
    assert set(found) == {"logits", "novelty"}
    known = exact["novelty"][:12]
    assert (found["novelty"][:12] - known).abs().max() < near * max(1.0, float(known.abs().max()))


def test_a_long_job_takes_a_backend_that_agrees(abstaining):
    predictor = Predictor(abstaining, "cpu")
    shown = images(40)
    choice = choose_backend(predictor, 5000, lambda count: shown[:count])
    answers = predictor.predict(shown, choice.request)
    exact = predictor.predict(shown)
    differ = sum(a.none_of_these != b.none_of_these for a, b in zip(answers, exact, strict=True))
    assert differ <= 1, choice.why


def test_an_explanation_is_about_the_classes(abstaining):
    found = explain(Predictor(abstaining, "cpu"), images()[0], "rollout")
    assert found.heat.ndim == 2


@pytest.fixture
def few(monkeypatch):
    """Check exports on few and small images."""
    pictures = agreement.many_sizes
    monkeypatch.setattr(agreement, "many_sizes", lambda readers: islice(pictures(readers[:8]), 3))


@pytest.mark.usefixtures("few")
def test_an_exported_file_answers_alike(abstaining, rows, tmp_path):
    path = tmp_path / "m.onnx"
    done = export(abstaining, "onnx", path, data=rows[0])
    assert done.agreement.drift < 1e-3
    stated = json.loads((path.parent / f"{path.name}.json").read_text())
    assert "none of these" in next(one["is"] for one in stated["outputs"] if one["name"] == "novelty")
    one, other = Predictor(abstaining, "cpu"), load(path)
    for a, b in zip(one.predict(images(), sets=0.1), other.predict(images(), sets=0.1), strict=True):
        assert (a.label, a.none_of_these, a.label_set) == (b.label, b.none_of_these, b.label_set)
        assert a.unlike == pytest.approx(b.unlike, abs=0.02)


@pytest.mark.usefixtures("few")
def test_a_folder_of_a_library_says_that_it_has_the_classes_only(abstaining, rows, tmp_path):
    done = export(abstaining, "timm", tmp_path / "folder", data=rows[0])
    assert any("none of these" in note for note in done.proven.notes)


def test_the_studio_shows_it_first_with_its_explanation(abstaining, tmp_path):
    for name, image in (("noise", far_images("noise", 4)[3]), ("red", images()[0])):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    given = [Picture(name, tmp_path / f"{name}.png") for name in ("noise", "red")]
    noise, red = answers(Predictor(abstaining, "cpu"), given)
    assert noise.bars[0][0] == "none of these"
    assert "images that fit their classes better" in noise.remarks[0]
    assert red.bars[0][0] in LABELS
    assert red.remarks == ()


def test_a_group_counts_once_and_classes_are_drawn_evenly():
    rows = [Row(f"{i}", "", group=f"g{i // 4}") for i in range(40)]
    assert [row.id for row in independent(rows)] == [f"{i}" for i in range(0, 40, 4)]
    assert len(independent(rows, 3)) == 3
    classes = np.array([0] * 900 + [1] * 30)
    chosen = classes[some_of_each(classes)]
    assert ((chosen == 0).sum(), (chosen == 1).sum()) == (200, 30)
