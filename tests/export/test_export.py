"""Every export answers as the model does, is opened like any other model, and is not written otherwise."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

import vitrail
from vitrail.cli.main import run
from vitrail.core.errors import DataError, RunError, SettingError
from vitrail.data.preprocess import Preprocess
from vitrail.export import agreement, graph_formats
from vitrail.export.export import export
from vitrail.infer.predictor import Predictor, load
from vitrail.runs.network import build_task
from vitrail.runs.proof import picture

MODELS = {
    "vit": ("vit_digits", Preprocess.for_size(32), {"temperature": 1.7}),
    "vit, cropped": ("vit_digits", Preprocess((32, 48), "crop"), {"pool": "mean"}),
    "cnn, padded": ("resnet10t", Preprocess((32, 32), "pad", 1.0), {}),
    "vit, bilinear": ("vit_digits", Preprocess((32, 32), "squash", 0.9, interpolation="bilinear"), {}),
}


@pytest.mark.parametrize("which", list(MODELS))
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_graph_agrees_and_is_opened_like_any_other_model(written, pictures, tmp_path, which, format):
    name, steps, settings = MODELS[which]
    model = written(name, steps, **settings)
    out = tmp_path / {"onnx": "a b.onnx", "openvino": "a b.xml"}[format]
    done = export(model, format, out, data=pictures)
    assert done.agreement.same_top == done.agreement.pictures >= 200
    assert done.agreement.smallest == (17, 23)
    assert done.agreement.largest == (3000, 4000)
    assert done.agreement.sizes > 100
    assert done.agreement.drift < 1e-4
    ours, theirs = Predictor(model), load(out)
    assert theirs.labels == ours.labels
    assert theirs.proof_drift < 1e-5
    assert [p.label for p in ours(pictures)] == [p.label for p in theirs(pictures)]
    apart = np.array([p.probabilities for p in ours(pictures)]) - [p.probabilities for p in theirs(pictures)]
    assert abs(apart).max() < 1e-5
    assert {path.name for path in tmp_path.iterdir()} == (
        {"a b.onnx", "a b.onnx.json"} if format == "onnx" else {"a b.xml", "a b.bin", "a b.xml.json"}
    )


@pytest.mark.usefixtures("few")
def test_the_onnx_file_says_everything_about_itself(written, pictures, tmp_path):
    done = export(written("vit_digits"), "onnx", tmp_path / "m.onnx", data=pictures)
    model = onnx.load(done.path)
    onnx.checker.check_model(model)
    assert model.opset_import[0].version >= 18
    sides = [side.dim_param or side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["height", "width", 3]
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [output.name for output in model.graph.output] == ["probabilities", "logits"]
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(said["labels"])[2] == "图"
    assert json.loads(said["preprocessing"])["size"] == [32, 32]
    assert json.loads(said["proof_shape"]) == [61, 47, 3]
    import base64

    shown = np.frombuffer(base64.b64decode(said["proof_picture"]), np.uint8).reshape(61, 47, 3)
    assert (shown == picture()).all()
    assert sum(json.loads(said["proof_fingerprint"])) == pytest.approx(1, abs=1e-5)


@pytest.mark.usefixtures("few")
def test_attention_is_an_output_on_request(written, pictures, tmp_path):
    import onnxruntime

    model = written("vit_digits")
    done = export(model, "onnx", tmp_path / "m.onnx", data=pictures, attention=True)
    session = onnxruntime.InferenceSession(done.path)
    found = session.run(["attention"], {"image": picture()})[0]
    predictor = Predictor(model)
    from vitrail.layers.sdpa import Recorder

    recorder = Recorder()
    predictor.network({"images": predictor.preprocess.eval(picture())[0][None]}, record=recorder)
    wanted = recorder.maps[-1].weights[0, :, 0, 1:].mean(0).reshape(8, 8)
    assert abs(found - wanted.numpy()).max() < 1e-5
    with pytest.raises(SettingError, match="no class token"):
        export(written("resnet10t"), "onnx", tmp_path / "n.onnx", data=pictures, attention=True)


@pytest.mark.usefixtures("few")
def test_a_torch_program_is_opened_only_where_it_is_trusted(written, pictures, tmp_path):
    done = export(written("vit_digits"), "torch", tmp_path / "m.pt2", data=pictures)
    assert done.agreement.same_top == done.agreement.pictures
    with pytest.raises(SettingError, match="--trust"):
        load(done.path)
    assert load(done.path, trust=True)(pictures)[0].labels


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("which", ["vit", "vit, cropped", "cnn, padded"])
def test_timm_reads_its_folder(written, pictures, tmp_path, which):
    import timm

    name, steps, settings = MODELS[which]
    model = written(name, steps, **settings)
    done = export(model, "timm", tmp_path / "theirs", data=pictures)
    assert done.agreement.same_top == done.agreement.pictures
    assert done.agreement.drift < 1e-5
    network = timm.create_model(f"local-dir:{done.path}", pretrained=True).eval()
    predictor = Predictor(model)
    pixels = predictor.preprocess.eval(picture())[0][None]
    with torch.no_grad():
        wanted = predictor.task.probabilities(predictor.network({"images": pixels}))
        # The temperature is in the written head.
        torch.testing.assert_close(network(pixels).softmax(-1), wanted, rtol=0, atol=1e-5)
    assert network.pretrained_cfg["label_names"][2] == "图"
    with pytest.raises(RunError, match="exists"):
        export(model, "timm", done.path, data=pictures)


@pytest.mark.usefixtures("few")
def test_transformers_reads_its_folder(written, pictures, tmp_path):
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model = written("vit_digits", Preprocess((32, 32), "crop"), temperature=0.6)
    done = export(model, "huggingface", tmp_path / "theirs", data=pictures)
    assert done.agreement.same_top == done.agreement.pictures
    network = AutoModelForImageClassification.from_pretrained(done.path).eval()
    assert network.config.id2label[2] == "图"
    processor = AutoImageProcessor.from_pretrained(done.path)
    pixels = processor(picture(), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 32, 32)
    with torch.no_grad():
        assert network(pixel_values=pixels).logits.shape == (1, 5)
    with pytest.raises(RunError, match="class token"):
        export(written("vit_digits", pool="mean"), "huggingface", tmp_path / "mean", data=pictures)


@pytest.mark.usefixtures("few")
def test_labels_that_do_not_exclude_each_other_are_exported_too(written, pictures, tmp_path):
    model = written("vit_digits", task="multilabel")
    done = export(model, "onnx", tmp_path / "m.onnx", data=pictures)
    assert done.agreement.same_top == done.agreement.pictures
    ours, theirs = Predictor(model)(pictures), load(done.path)(pictures)
    assert [p.chosen for p in ours] == [p.chosen for p in theirs]


@pytest.mark.usefixtures("few")
def test_nothing_is_written_where_an_export_answers_otherwise(written, pictures, tmp_path, monkeypatch):
    model = written("vit_digits")

    def forged(predictor, form):
        bent = Predictor(model)
        bent.network.head.linear.bias[0] += 0.02
        return honest(bent, form)

    honest = graph_formats.onnx_model
    monkeypatch.setattr(graph_formats, "onnx_model", forged)
    with pytest.raises(RunError, match="Nothing was written"):
        export(model, "onnx", tmp_path / "m.onnx", data=pictures)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_refused_before_the_work(written, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("vitrail.export.export.Predictor", lambda *_: pytest.fail("nothing is opened"))
    (tmp_path / "there.onnx").mkdir()
    with pytest.raises(RunError, match="is a folder"):
        export(written("vit_digits"), "onnx", tmp_path / "there.onnx", data=pictures)


TASK = build_task("classify", ["a", "b"], {})


def answering(*probabilities):
    logits = torch.tensor(probabilities).log()
    return lambda part: {"logits": logits.expand(len(part), 2)}


def compared(ours, theirs, pictures, shown):
    return agreement.compare(TASK, ours, {"theirs": agreement.Side(theirs)}, pictures, shown)["theirs"]


def test_few_pictures_are_not_called_many():
    readers = [lambda: np.zeros((17, 23, 3), np.uint8)] * 3
    ask = answering(0.4, 0.6)
    found = compared(ask, ask, agreement.many_sizes(readers, 8), agreement.shown(readers))
    assert (found.shown, found.pictures) == (3, 8)
    assert "8 of 8 top answers" in str(found)
    assert "3 images in" in str(found)
    assert agreement.shown(readers * 40) == 100
    assert agreement.shown(readers * 100) == 300


def test_ties_are_told_from_errors():
    one, other = answering(0.4999, 0.5001), answering(0.5001, 0.4999)
    shown = [np.zeros((17, 23, 3), np.uint8)]
    found = compared(one, other, iter(shown), 1)
    assert (found.same_top, found.ties) == (0, 1)
    agreement.demand(found, "tie")
    found = compared(one, answering(0.4, float("nan")), iter(shown), 1)
    with pytest.raises(RunError):
        agreement.demand(found, "NaN")


@pytest.mark.usefixtures("few")
def test_broken_foreign_and_unknown_files_are_refused_in_plain_words(written, pictures, tmp_path):
    done = export(written("vit_digits"), "onnx", tmp_path / "m.onnx", data=pictures)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(done.path.read_bytes()[:5000])
    with pytest.raises(RunError, match=r"cut\.onnx"):
        load(cut)
    model = onnx.load(done.path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(RunError, match="not exported by vitrail"):
        load(tmp_path / "foreign.onnx")
    model = onnx.load(done.path)
    floats = (t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    weight = next(t for t in floats if 5 in t.dims and 64 in t.dims)
    weight.raw_data = (onnx.numpy_helper.to_array(weight) * np.float32(1.5)).tobytes()
    onnx.save(model, tmp_path / "bent.onnx")
    with pytest.raises(RunError, match="proof image"):
        load(tmp_path / "bent.onnx")
    with pytest.raises(RunError, match=r"vitrail\.load"):
        Predictor(done.path)
    with pytest.raises(SettingError, match="onnx"):
        export(tmp_path, "onx")
    with pytest.raises(RunError, match="inspected"):
        vitrail.explain(load(done.path), picture())


def test_the_command_line_writes_and_asks(written, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = written("vit_digits")
    assert run(["export", str(model)]) == 1
    assert "--data" in capsys.readouterr().err
    assert run(["export", str(model), "--data", str(pictures), "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["path"] == "toy.onnx"
    assert "top answers are the same" in printed.err
    assert run(["predict", "toy.onnx", str(pictures), "--json"]) == 0
    by_graph = json.loads(capsys.readouterr().out)
    assert run(["predict", str(model), str(pictures), "--json"]) == 0
    by_model = json.loads(capsys.readouterr().out)
    assert [one["label"] for one in by_graph] == [one["label"] for one in by_model]


def test_openvino_opens_no_socket(tmp_path):
    """Its usage reporting runs in threads of its own; a child process counts every connection it tries."""
    script = (
        "import socket, sys\n"
        "tried = []\n"
        "def count(self, address): tried.append(address); raise OSError('no network here')\n"
        "socket.socket.connect = count; socket.socket.connect_ex = count\n"
        "socket.create_connection = lambda address, *a, **k: count(None, address)\n"
        "def resolve(*a, **k): tried.append(a); raise socket.gaierror('no network here')\n"
        "socket.getaddrinfo = resolve\n"
        "from vitrail.infer.runtimes import openvino\n"
        "openvino().Core()\n"
        "import time; time.sleep(1)\n"
        "print(tried, 'openvino_telemetry' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "[] False", done.stderr


def test_no_pictures_no_export(written, tmp_path):
    folder = tmp_path / "none"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="--data"):
        export(written("vit_digits"), "onnx", tmp_path / "m.onnx", data=folder)
