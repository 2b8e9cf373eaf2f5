"""Every operating point exports: the graph answers as the model does at that point, or the refusal says why not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from vitrail.cli.main import run
from vitrail.core.errors import RunError, SettingError
from vitrail.data.preprocess import Preprocess
from vitrail.export.export import export
from vitrail.export.graph_formats import stable_sort
from vitrail.export.traced_model import Resized
from vitrail.infer.openvino_backend import quietly
from vitrail.infer.predictor import Predictor, load
from vitrail.layers.elastic import at_size, read_point
from vitrail.layers.sdpa import Recorder
from vitrail.models.deit import DeiTConfig
from vitrail.models.factory import build
from vitrail.models.supervit import SuperViTConfig
from vitrail.models.swin import SwinConfig
from vitrail.models.vit import ViTConfig
from vitrail.runs.model_file import read_model, write_model
from vitrail.runs.network import build_network, build_task
from vitrail.runs.proof import picture

VIT = ViTConfig(image=28, patch=4, width=44, depth=3, heads=2, hidden=60)
LABELS = ("road", "sky", "tree")
STEPS = Preprocess((28, 28), "crop")
SUPER = SuperViTConfig(image=(28, 36), patch=4, width=44, depth=4, heads=2, hidden=2.0, stations=(1, 2, 3))
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
TRAINED = {"sizes": [[20, 24]], "keeps": [0.5]}
MEASURED = {
    "20px/1": {"temperature": 0.5},
    "28px/merge5": {"temperature": 3.0},
    "28px/patch7": {},
    "20px/merge3": {},
}

pytestmark = pytest.mark.usefixtures("few")


def with_points(path, measured):
    """Add operating points with what was fitted there, as `vitrail eval` stores them."""

    class Stored(torch.nn.Module):
        def state_dict(self):
            return tensors

    header, tensors = read_model(path)
    rows = [{"point": point, "task": {"settings": settings}} for point, settings in measured.items()]
    write_model(path, Stored(), header.model_copy(update={"points": rows}))
    return path


@pytest.fixture(scope="module")
def plain(written):
    """A ViT whose operating points were measured."""
    return with_points(written(VIT, STEPS), MEASURED)


@pytest.fixture(scope="module")
def elastic(written):
    """A SuperViT that was trained for two sizes and two shares of tokens."""
    return written(SUPER, Preprocess((28, 36), "crop"), task="elastic", **TRAINED)


def probabilities(predictor, images):
    return np.array([one.probabilities for one in predictor(images)])


@pytest.mark.parametrize(
    ("format", "point"),
    [
        *(("onnx", point) for point in MEASURED),
        *((format, point) for format in ("openvino", "torch") for point in ("28px/patch7", "20px/merge3")),
    ],
)
def test_a_graph_answers_as_the_model_at_this_point(plain, pictures, tmp_path, format, point):
    done = export(plain, format, tmp_path / f"m{SUFFIXES[format]}", data=pictures, point=point)
    assert done.agreement.same_top == done.agreement.pictures
    assert done.agreement.drift < 1e-4
    assert f"operating point {point}, not as the whole network, 28px/1" in done.proven.notes[0]
    ours, theirs = Predictor(plain, point=point), load(done.path, trust=True)
    assert theirs.point == ours.point == read_point(point)
    assert theirs.proof_drift < 1e-5
    found = probabilities(theirs, pictures)
    assert abs(probabilities(ours, pictures) - found).max() < 1e-5
    assert abs(probabilities(Predictor(plain), pictures) - found).max() > 1e-3
    assert theirs.task.settings.temperature == MEASURED[point].get("temperature", 1)
    header = theirs.header
    assert (header.point, [row["point"] for row in header.points]) == (point, [point])
    assert header.proof != ours.header.proof


@pytest.mark.parametrize(
    ("format", "point"),
    [*((format, "20x24px/0.5") for format in SUFFIXES), ("onnx", "20x24px/1")],
)
def test_the_second_resize_of_a_trained_size_is_in_the_graph(elastic, pictures, tmp_path, format, point):
    done = export(elastic, format, tmp_path / f"m{SUFFIXES[format]}", data=pictures, point=point)
    ours, theirs = Predictor(elastic, point=point), load(done.path, trust=True)
    assert theirs.proof_drift < 1e-5
    found = probabilities(theirs, pictures)
    assert abs(probabilities(ours, pictures) - found).max() < 1e-5
    assert abs(probabilities(Predictor(elastic), pictures) - found).max() > 1e-3
    one, other = ours.ready(picture()), theirs.ready(picture())
    assert one.geometry == other.geometry
    said = json.loads((tmp_path / f"m{SUFFIXES[format]}.json").read_text())
    again = said["preprocessing"].get("resized_again", {})
    assert again.get("size", [28, 36]) == list(ours.point.size)
    assert said["operating_point"] == point


@pytest.mark.parametrize("new", [(20, 24), (7, 36), (28, 36), (1, 1)])
def test_the_second_resize_is_that_of_training(new):
    images = torch.randn(2, 3, 28, 36, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Resized((28, 36), new)(images), at_size(images, new), rtol=0, atol=1e-5)


def test_masks_at_a_point_lie_on_the_original(model_file, pictures, tmp_path):
    torch.manual_seed(0)
    asked = build_task("segment", LABELS, {})
    network = build_network(build(replace(VIT, image=(28, 36))), asked).eval()
    point = "20x24px/merge3"
    model = with_points(model_file("toy", network, asked, Preprocess((28, 36), "pad")), {point: {}})
    done = export(model, "onnx", tmp_path / "m.onnx", data=pictures, point=point)
    ours, theirs = Predictor(model, point=point), load(done.path)
    one, other = (
        predictor.predict([np.kron(picture(), np.ones((2, 3, 1), np.uint8))])[0]
        for predictor in (ours, theirs)
    )
    assert one.mask.shape == (122, 141)
    assert (one.mask == other.mask).mean() > 0.99


@pytest.mark.parametrize(
    ("which", "point", "batch"),
    [
        ("plain", "28px/merge5", False),
        ("plain", "20px/merge3", True),
        ("elastic", "20x24px/0.5", False),
        ("elastic", "28x36px/0.5", True),
    ],
)
def test_attention_is_that_of_all_patches_also_of_batches(request, pictures, tmp_path, which, point, batch):
    model = request.getfixturevalue(which)
    out = tmp_path / "m.onnx"
    export(model, "onnx", out, data=pictures, attention=True, batch=batch, point=point)
    predictor = Predictor(model, point=point)
    images = np.random.default_rng(0).integers(0, 256, (5, 40, 30, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(out)
    given = {"images": images} if batch else {"image": images[0]}
    found = dict(zip([one.name for one in session.get_outputs()], session.run(None, given), strict=True))
    images = images if batch else images[:1]
    recorder, ready = Recorder(), [predictor.ready(image) for image in images]
    ours = predictor.task.probabilities(predictor.outputs(ready)).numpy()
    assert abs(found["probabilities"].reshape(ours.shape) - ours).max() < 1e-5
    with torch.inference_mode():
        predictor.at(predictor.point)({"images": torch.stack([one.pixels for one in ready])}, recorder)
    wanted = recorder.maps[-1].dense()[:, :, 0, 1:].mean(1).numpy()
    looks = found["attention"].reshape(wanted.shape)
    assert found["attention"].shape[-2:] == tuple(side // 4 for side in predictor.point.size)
    assert abs(looks - wanted).max() < 1e-5
    assert (looks.sum(1) <= 1 + 1e-6).all()
    assert bool((looks == 0).any()) == (predictor.point.keep < 1)


def test_the_command_line_names_the_point_and_predicts_at_it(plain, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["export", str(plain), "--data", str(pictures), "--point"]
    assert run([*command, "28px/merge5", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["path"] == "toy-28px-merge5.onnx"
    assert "merges 5 pairs" in printed.err
    model = onnx.load("toy-28px-merge5.onnx")
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["operating_point"] == "28px/merge5"
    assert "vit at 28px/merge5, 5 classes" in said["description"]
    assert run(["predict", "toy-28px-merge5.onnx", str(pictures), "--json"]) == 0
    by_graph = json.loads(capsys.readouterr().out)
    assert run(["predict", str(plain), str(pictures), "--point", "28px/merge5", "--json"]) == 0
    by_model = json.loads(capsys.readouterr().out)
    assert [one["label"] for one in by_graph] == [one["label"] for one in by_model]
    assert run(["predict", "toy-28px-merge5.onnx", str(pictures), "--point", "28px/1"]) == 1
    assert "exported graph of 28px/merge5" in capsys.readouterr().err
    assert run([*command, "99px/merge5"]) == 1
    assert "20px/merge3" in capsys.readouterr().err
    assert run([*command, "small"]) == 1
    assert "160px/merge8" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".onnx"] == ["toy-28px-merge5.onnx"]


def test_the_whole_network_is_written_as_without_a_point(plain, pictures, tmp_path):
    named = export(plain, "onnx", tmp_path / "named.onnx", data=pictures, point="28px/1")
    unnamed = export(plain, "onnx", tmp_path / "unnamed.onnx", data=pictures)
    assert named.path.read_bytes() == unnamed.path.read_bytes()
    assert "point" not in json.loads(onnx.load(named.path).metadata_props[0].value)
    assert not any("operating point" in note for note in named.proven.notes)
    assert load(unnamed.path, point="28px/1").labels
    with pytest.raises(RunError, match="graph of the whole network"):
        load(unnamed.path, point="28px/merge5")


@pytest.mark.parametrize(
    ("format", "point"),
    [("timm", "20px/1"), ("timm", "28px/patch7"), ("timm", "24px/patch8"), ("huggingface", "20px/patch10")],
)
def test_library_folders_hold_smaller_sizes_and_larger_patches(written, pictures, tmp_path, format, point):
    config = DeiTConfig(image=28, patch=4, width=44, depth=2, heads=2)
    model = with_points(written(config, STEPS), {point: {"temperature": 0.5}})
    done = export(model, format, tmp_path / "theirs", data=pictures, point=point)
    assert done.agreement.same_top == done.agreement.pictures
    assert done.agreement.drift < 1e-5
    text = (done.path / "README.md").read_text()
    assert f"deit at {point}" in text
    assert "It answers here on images of" in text


@pytest.mark.parametrize(
    ("which", "point", "why"),
    [
        ("plain", "28px/merge5", "drops or merges tokens"),
        ("elastic", "28x36px/0.5", "drops or merges tokens"),
        ("elastic", "20x24px/1", "resized twice"),
    ],
)
@pytest.mark.parametrize("format", ["timm", "huggingface"])
def test_library_folders_refuse_what_they_cannot_hold(request, pictures, tmp_path, format, which, point, why):
    model = request.getfixturevalue(which)
    with pytest.raises(SettingError, match=why) as refused:
        export(model, format, tmp_path / "theirs", data=pictures, point=point)
    assert "onnx, openvino or torch" in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_library_folders_refuse_other_networks_at_another_size(written, pictures, tmp_path):
    swin = SwinConfig((32, 64), 2, width=12, depths=(2, 2), heads=(1, 3), window=4)
    model = with_points(written(swin), {"16x32px/1": {}})
    with pytest.raises(SettingError, match="position table alone"):
        export(model, "timm", tmp_path / "theirs", data=pictures, point="16x32px/1")
    done = export(model, "onnx", tmp_path / "m.onnx", data=pictures, point="16x32px/1")
    assert done.agreement.drift < 1e-4


class Sorted(torch.nn.Module):
    """Numbers in order, and the places where they were: (b, n)."""

    def forward(self, x):
        return x.argsort(dim=1, descending=True, stable=True), x.argsort(dim=-1, stable=True)


def test_equal_numbers_are_sorted_as_in_torch():
    x = torch.randint(0, 5, (3, 200), generator=torch.Generator().manual_seed(0)).float()
    with quietly(), torch.no_grad():
        program = torch.export.export(Sorted(), (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        made = torch.onnx.export(
            program, dynamo=True, custom_translation_table={torch.ops.aten.sort.stable: stable_sort}
        )
    session = onnxruntime.InferenceSession(made.model_proto.SerializeToString())
    found = session.run(None, {session.get_inputs()[0].name: x[:2].numpy()})
    for one, other in zip(found, Sorted()(x[:2]), strict=True):
        assert (one == other.numpy()).all()
