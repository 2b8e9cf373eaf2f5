"""What other programs read of an exported file, and what they answer by it, in their own ways."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from PIL import Image

from vitrail.cli.main import run
from vitrail.core.errors import SettingError
from vitrail.data.preprocess import Preprocess
from vitrail.export import agreement
from vitrail.export.export import export
from vitrail.export.words import decoding
from vitrail.infer.predictor import Predictor, load
from vitrail.infer.runtimes import core
from vitrail.models.vit import ViTConfig
from vitrail.runs.proof import picture
from vitrail.weights.preprocessing import published_preprocess
from vitrail.weights.pretrained import from_path

pytestmark = pytest.mark.usefixtures("few")

NODE = Path(__file__).parents[2] / "bench" / "clients.cjs"
SQUARE = ViTConfig(image=28, patch=7, width=64, depth=1, heads=1)
GRAPHS = {"onnx": "m.onnx", "openvino": "m.xml", "torch": "m.pt2"}


@pytest.fixture(scope="module")
def model(written) -> Path:
    """A network that cuts margins off."""
    return written(
        ViTConfig(image=(28, 35), patch=7, width=64, depth=1, heads=1),
        Preprocess((28, 35), "crop"),
        pool="cls",
    )


@pytest.fixture(scope="module")
def graphs(model, pictures, tmp_path_factory):
    """The same network in every format of graphs, for images one by one and in batches."""
    folder = tmp_path_factory.mktemp("graphs")

    def written_as(format: str, batch: bool):
        name = f"{'many' if batch else 'one'}-{GRAPHS[format]}"
        return export(model, format, folder / name, data=pictures, batch=batch)

    with pytest.MonkeyPatch.context() as patch:  # as `few`, and no photograph of 12 million pixels
        patch.setattr(agreement, "many_sizes", partial(agreement.many_sizes, least=8))
        patch.setattr(agreement, "LARGEST", (300, 400))
        return {(format, batch): written_as(format, batch) for format in GRAPHS for batch in (False, True)}


def said_by(path: Path) -> dict[str, str]:
    """Return what a graph says of itself, read as its own runtime's users read it."""
    match path.suffix:
        case ".onnx":
            return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        case ".xml":
            names = ("labels", "input", "outputs", "decoding", "description")
            found = core().read_model(str(path))
            return {name: found.get_rt_info(["model_info", name]).value for name in names}
        case _:
            extra = dict.fromkeys(("labels", "input", "outputs", "decoding", "description"), "")
            torch.export.load(path, extra_files=extra)
            return extra


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("format", GRAPHS)
def test_every_graph_and_the_file_beside_it_say_what_goes_in_and_comes_out(graphs, model, format, batch):
    done = graphs[format, batch]
    assert done.agreement.same_top == done.agreement.pictures
    assert done.agreement.drift < 1e-4
    said, beside = said_by(done.path), json.loads(Path(f"{done.path}.json").read_text())
    assert json.loads(said["labels"]) == beside["labels"] == list(Predictor(model).labels)
    assert json.loads(said["input"]) == beside["input"]
    assert json.loads(said["outputs"]) == beside["outputs"]
    taken = beside["input"]
    sides = ["height", "width", 3]
    assert taken["shape"] == (["batch", *sides] if batch else sides)
    assert (taken["name"], taken["layout"]) == (("images", "NHWC") if batch else ("image", "HWC"))
    assert (taken["dtype"], taken["color_order"], taken["range"]) == ("uint8", "RGB", [0, 255])
    assert [one["name"] for one in beside["outputs"]] == ["probabilities", "logits"]
    assert beside["file"] == done.path.name
    for word in ("EXIF", "CMYK", "transparency", "16 bits", "profile"):
        assert word in said["decoding"]
    assert "float32" in said["description"]


def test_onnx_describes_itself_where_its_viewers_look(graphs):
    found = onnx.load(graphs["onnx", False].path)
    assert found.producer_name == "vitrail"
    assert "labels[i]" in found.doc_string
    assert "uint8, RGB, 0 to 255" in found.graph.input[0].doc_string
    assert "EXIF" in found.graph.input[0].doc_string
    assert all("class" in output.doc_string for output in found.graph.output)


@pytest.mark.parametrize(("batch", "layout"), [(False, "[H,W,C]"), (True, "[N,H,W,C]")])
def test_openvino_knows_the_layout(graphs, batch, layout):
    found = core().read_model(str(graphs["openvino", batch].path))
    assert found.get_parameters()[0].get_layout().to_string() == layout
    assert found.input(0).any_name == ("images" if batch else "image")
    assert [port.any_name for port in found.outputs] == ["probabilities", "logits"]


def test_pictures_of_one_size_go_together(graphs, model):
    import onnxruntime

    draw = np.random.default_rng(3)
    images = np.kron(draw.integers(0, 256, (3, 7, 5, 3), dtype=np.uint8), np.ones((1, 9, 11, 1), np.uint8))
    wanted = [answer.top(5) for answer in Predictor(model)(list(images))]
    labels = Predictor(model).labels
    session = onnxruntime.InferenceSession(graphs["onnx", True].path)
    compiled = core().compile_model(
        str(graphs["openvino", True].path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    program = torch.export.load(graphs["torch", True].path).module()
    for found in (
        session.run(["probabilities"], {"images": images})[0],
        compiled(images)["probabilities"],
        program(torch.from_numpy(images))[0].detach().numpy(),
    ):
        assert found.shape == (3, 5)
        for row, answer in zip(found, wanted, strict=True):
            for name, probability in answer:
                assert row[labels.index(name)] == pytest.approx(probability, abs=1e-5)
    for format in ("onnx", "openvino", "torch"):
        theirs = load(graphs[format, True].path, trust=True)
        assert theirs.proof_drift < 1e-5
        assert [answer.label for answer in theirs(list(images))] == [one[0][0] for one in wanted]


@pytest.mark.parametrize("format", ["timm", "huggingface"])
def test_folders_take_batches_as_they_are(model, format, tmp_path):
    with pytest.raises(SettingError, match="Remove --batch"):
        export(model, format, tmp_path / "theirs", batch=True)


@pytest.mark.parametrize("precision", ["bf16", "f16"])
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_openvino_answers_the_same_in_fewer_bits(graphs, model, pictures, format, precision):
    compiled = core().compile_model(
        str(graphs[format, False].path), "CPU", {"INFERENCE_PRECISION_HINT": precision}
    )
    predictor = Predictor(model)
    files = sorted(pictures.iterdir())
    shown = [*files, picture(), picture()[:, :1], np.repeat(np.repeat(picture(), 40, 0), 30, 1)]
    for image in shown:
        (answer,) = predictor(image)
        found = compiled(predictor.decoded(image))["probabilities"]
        assert predictor.labels[int(found.argmax())] == answer.label
        assert found.max() == pytest.approx(answer.probability, abs=0.05)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_what_openvino_says_at_its_own_default_is_measured_and_said(graphs, format):
    proven = graphs[format, False].proven
    ((name, found),) = proven.elsewhere.items()
    assert name.startswith("OpenVINO at its own default")
    assert found.near
    assert found.pictures == graphs[format, False].agreement.pictures
    assert proven.notes == (f"{name}: {found}.",)


def test_node_reads_the_classes_beside_the_graph(graphs, model, pictures, tmp_path):
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if subprocess.run(["node", "-e", "require('onnxruntime-node')"], capture_output=True).returncode:
        pytest.skip(
            "onnxruntime-node is not installed: npm i -g onnxruntime-node, and NODE_PATH=$(npm root -g)"
        )
    predictor, shown = Predictor(model), []
    for i, file in enumerate(sorted(pictures.iterdir())):
        array = predictor.decoded(file)
        (tmp_path / f"{i}.raw").write_bytes(array.tobytes())
        sides = dict(zip(("height", "width", "channels"), array.shape, strict=True))
        shown.append({"file": str(tmp_path / f"{i}.raw"), **sides})
    (tmp_path / "shown.json").write_text(json.dumps(shown))
    words = ["node", str(NODE), str(graphs["onnx", False].path), str(tmp_path / "shown.json")]
    asked = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert asked.returncode == 0, asked.stderr
    found = json.loads(asked.stdout)
    assert (found["inputs"], found["outputs"]) == (["image"], ["probabilities", "logits"])
    assert [one["label"] for one in found["answers"]] == [one.label for one in predictor(pictures)]


FITS = {
    "squash": Preprocess((28, 28), "squash", 1.0),
    "crop": Preprocess((28, 28), "crop", 0.875),
    "pad": Preprocess((28, 28), "pad", 1.0),
    "pad with a margin": Preprocess((28, 28), "pad", 0.8),
    "grey": Preprocess((28, 28), "pad", 1.0, (0.4,), (0.3,), 1),
}


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("format", ["timm", "huggingface"])
def test_folders_say_how_they_answer_through_their_own_preparation(written, pictures, tmp_path, format, fit):
    steps = FITS[fit]
    config = ViTConfig(image=28, patch=7, width=64, depth=1, heads=1, channels=steps.channels)
    done = export(written(config, steps, pool="cls"), format, tmp_path / "theirs", data=pictures)
    ((name, found),) = done.proven.elsewhere.items()
    assert name == {"timm": "timm's own transform", "huggingface": "transformers' own processor"}[format]
    assert found.pictures == found.shown == 8
    assert found.drift > 0
    assert found.near == done.proven.notes[0].endswith(f"{found}.")
    text = (done.path / "README.md").read_text()
    assert f"{name}: {found}" in text
    assert decoding(steps) in text
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == {"timm": "timm", "huggingface": "transformers"}[format]
    assert front["pipeline_tag"] == "image-classification"
    assert "license" not in front  # of weights from scratch nobody said any
    named = format == "timm" or (done.path / "preprocessor_config.json").exists()
    assert named == done.proven.prepares == (found.near or format == "timm" or steps.fit != "pad")
    assert ("vitrail.load" in text) != named
    if named:
        again = published_preprocess(from_path(done.path))
        assert (again.fit, again.size) == (steps.fit, steps.size)


@pytest.mark.parametrize("fit", ["pad", "pad with a margin", "grey"])
def test_transformers_pads_where_that_answers_as_the_model(written, pictures, tmp_path, monkeypatch, fit):
    """By Llava's processor, which is another way: it is named only where the answers hold."""
    steps = FITS[fit]
    config = ViTConfig(image=28, patch=7, width=64, depth=1, heads=1, channels=steps.channels)
    model = written(config, steps, pool="cls")
    monkeypatch.setattr(agreement, "FEW_BITS", 1.0)
    done = export(model, "huggingface", tmp_path / "theirs", data=pictures)
    assert done.proven.prepares
    again = published_preprocess(from_path(done.path))
    assert (again.fit, again.size) == ("pad", steps.size)
    assert int(28 / again.crop_fraction) == int(28 / steps.crop_fraction)
    monkeypatch.setattr(agreement, "FEW_BITS", 1e-6)
    done = export(model, "huggingface", tmp_path / "others", data=pictures)
    assert not (done.path / "preprocessor_config.json").exists()
    assert "the folder does not include it" in (done.path / "README.md").read_text()


def test_the_number_is_that_of_the_files_through_the_librarys_own_transform(written, pictures, tmp_path):
    """Odd margins lie one pixel off in timm: the number must tell of it, and be what its users find."""
    import timm
    from timm.data import create_transform, resolve_model_data_config

    model = written(SQUARE, FITS["pad"], pool="cls")
    done = export(model, "timm", tmp_path / "theirs", data=pictures)
    network = timm.create_model(f"local-dir:{done.path}", pretrained=True).eval()
    steps = create_transform(**resolve_model_data_config(network), is_training=False)
    predictor, drift, same = Predictor(model), 0.0, 0
    for file in sorted(pictures.iterdir()):
        (ours,) = predictor(file)
        with torch.no_grad(), Image.open(file) as image:
            theirs = network(steps(image.convert("RGB"))[None]).softmax(-1)[0]
        wanted = torch.tensor(
            [dict(zip(ours.labels, ours.probabilities, strict=True))[n] for n in predictor.labels]
        )
        drift = max(drift, float((theirs - wanted).abs().max()))
        same += predictor.labels[int(theirs.argmax())] == ours.label
    (found,) = done.proven.elsewhere.values()
    assert (found.same_top, found.pictures) == (same, 8)
    assert found.drift == pytest.approx(drift, abs=1e-5)


WITHOUT = {
    "oblong crop": (Preprocess((28, 35), "crop"), r"resizes and crops .*28 x 35"),
    "oblong pad": (Preprocess((28, 35), "pad"), r"pads .*28 x 35"),
    "four channels": (Preprocess((28, 28), "squash", 1.0, (0.5,) * 4, (0.5,) * 4, 4), "takes RGBA"),
    "raw": (
        Preprocess((28, 28), "squash", 1.0, (0.4,) * 3, (0.2,) * 3, scale=10_000),
        "raw values of the file",
    ),
}


@pytest.mark.parametrize("kind", WITHOUT)
def test_what_transformers_cannot_prepare_is_said(written, pictures, tmp_path, capsys, kind):
    steps, why = WITHOUT[kind]
    config = ViTConfig(image=steps.size, patch=7, width=64, depth=1, heads=1, channels=steps.channels)
    model, out = written(config, steps, pool="cls"), tmp_path / "theirs"
    words = ["export", str(model), "--format", "huggingface", "--out", str(out), "--data", str(pictures)]
    assert run(words) == 0
    printed = capsys.readouterr().err
    text = (out / "README.md").read_text()
    assert not (out / "preprocessor_config.json").exists()
    for said in (printed, text):
        assert re.search(why, said)
        assert "prepare " in said
