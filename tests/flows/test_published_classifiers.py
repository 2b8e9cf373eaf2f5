"""Published classifiers on the command line: by folder, by name and from the hub, without any training."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from zipfile import ZipFile

import huggingface_hub  # noqa: F401  (it reads HF_HUB_OFFLINE once, so before a test sets it)
import numpy as np
import pytest
import timm
import torch
from hub_server import Hub
from PIL import Image
from timm.models._hub import save_for_hf

from vitrail.benchmark import speed
from vitrail.export import agreement
from vitrail.infer.backends import PLAIN
from vitrail.infer.predictor import load
from vitrail.runs.published import published_model
from vitrail.weights.class_names import class_names


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> Path:
    """A small network of timm with the classes of ImageNet."""
    folder = tmp_path_factory.mktemp("theirs") / "small_net"
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=1000)
    torch.nn.init.normal_(network.fc.weight, std=0.2)
    save_for_hf(network, folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Eight images in folders named by WordNet id, by id and name, and by name."""
    root, draw = tmp_path_factory.mktemp("some") / "photographs", np.random.default_rng(0)
    for number in range(8):
        file = root / ("n01518878", "n02110958_pug", "English_setter", "tench")[number % 4] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (90, 70, 3), dtype=np.uint8)).save(file)
    return root


def test_a_folder_answers_and_says_what_was_assumed(vitrail, theirs, photographs):
    image = photographs / "tench" / "3.png"
    done = vitrail("predict", theirs, image, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(
        "the weights small_net: the names of ImageNet are used for its 1000 classes\n"
    )
    answer = json.loads(done.stdout)[0]
    assert answer["label"] == load(published_model(str(theirs)).path).predict(image)[0].label
    with pytest.warns(UserWarning, match="the names of ImageNet are used"):
        assert load(theirs).predict(image)[0].label == answer["label"]


def test_eval_matches_folders_of_wordnet_and_shows_the_classes_that_are_there(vitrail, theirs, photographs):
    done = vitrail("eval", theirs, photographs)
    assert done.returncode == 0, done.stderr
    assert (
        "3 classes matched by WordNet id or spelling, such as English_setter: English setter." in done.stderr
    )
    assert "996 classes without an image are not shown." in done.stdout
    rows = [re.split(r"  +", line)[:2] for line in done.stdout.splitlines()]
    assert [row for row in rows if row[-1] == "2"] == [
        [n, "2"] for n in ("tench", "ostrich", "English setter", "pug")
    ]


def test_a_class_that_it_does_not_know_is_refused(vitrail, theirs, photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "more")
    (tmp_path / "more" / "tench").rename(tmp_path / "more" / "unicorn")
    done = vitrail("eval", theirs, tmp_path / "more")
    assert done.returncode == 1
    assert "1 class that the model does not know: unicorn" in done.stderr


@pytest.mark.parametrize("words", ["eval {0}", "export {0}", "compare --runs {0} {0}"])
def test_what_needs_images_asks_for_them(vitrail, theirs, words):
    done = vitrail(*words.format(theirs).split())
    assert done.returncode == 1
    assert (
        f"{theirs} names published weights, which have no images of their own. Name some: vitrail"
        in done.stderr
    )


def test_explain_and_export_take_it_as_any_model(vitrail, theirs, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "LARGEST", (300, 400))
    image = photographs / "tench" / "3.png"
    done = vitrail("explain", theirs, image, "--method", "gradcam", "--no-check", "--out", tmp_path / "maps")
    assert done.returncode == 0, done.stderr
    done = vitrail("export", theirs, "--data", photographs, "--format", "onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Checked: 200 of 200 top answers are the same" in done.stderr
    exported = vitrail("predict", tmp_path / "small_net.onnx", image, "--json")
    assert exported.returncode == 0, exported.stderr
    found = json.loads(exported.stdout)[0]
    wanted = json.loads(vitrail("predict", theirs, image, "--json").stdout)[0]
    assert found["label"] == wanted["label"]
    assert found["probability"] == pytest.approx(wanted["probability"], abs=5e-3)


def test_names_are_known_and_typing_errors_hinted(vitrail, theirs, photographs, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    image = photographs / "tench" / "3.png"
    for word, said in {
        "tf_efficientnet_lit0": "Did you mean 'tf_efficientnet_lite0.in1k'?",
        "efficientnet_lite0.ra_in1k": "HF_HUB_OFFLINE forbids the network. Ways out: (1)",
        "vit_digits": "No weights with a classifier are published for vit_digits.",
        "dinov2_s14": "No weights with a classifier are published for dinov2_s14.",
        "runs/photos": "runs/photos does not exist.",
    }.items():
        done = vitrail("predict", word, image, cwd=tmp_path)
        assert done.returncode == 1, word
        assert said in done.stderr
        assert "--weights none" not in done.stderr
    assert vitrail("weights", "add", theirs, "--name", "my_resnet").returncode == 0
    assert vitrail("predict", "my_resnet", image).returncode == 0
    assert "Did you mean 'my_resnet', which you added?" in vitrail("predict", "resnet18", image).stderr


@pytest.fixture
def hub(theirs, tmp_path, monkeypatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("config.json", "model.safetensors"):
        server.files[f"them/net/resolve/main/{name}"] = (theirs / name).read_bytes()
        server.files[f"timm/test_resnet.r160_in1k/resolve/main/{name}"] = (theirs / name).read_bytes()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_hub_is_asked_once(vitrail, hub, photographs, monkeypatch):
    image = photographs / "tench" / "3.png"
    first = vitrail("predict", "them/net", image)
    assert first.returncode == 0, first.stderr
    named = vitrail("predict", "test_resnet", image)
    assert named.returncode == 0, named.stderr
    assert "test_resnet: the weights test_resnet.r160_in1k, licence apache-2.0" in named.stderr
    assert "names of ImageNet" not in named.stderr
    asked = len(hub.ranges)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert vitrail("predict", "them/net", image).stdout == first.stdout
    assert vitrail("predict", "test_resnet", image).stdout == named.stdout
    assert len(hub.ranges) == asked
    monkeypatch.delenv("HF_HUB_OFFLINE")
    gone = vitrail("predict", "them/nothing", image)
    assert gone.returncode == 1
    assert "There is no such path here, and them/nothing cannot be had" in gone.stderr
    assert "knows no such repository" in gone.stderr


def test_bench_measures_weights_where_they_are_named(vitrail, theirs, monkeypatch):
    monkeypatch.setattr(speed, "backends_for", lambda network, device: [PLAIN])
    options = ("--rounds", "1", "--batch", "1", "--no-compile", "--json")
    rows = json.loads(vitrail("bench", theirs, *options).stdout)["rows"]
    assert {row["model"] for row in rows} == {str(theirs)}
    wrong = vitrail("bench", "no_such/net.onnx", *options)
    assert wrong.returncode == 1


def test_the_real_network_is_right_as_often_as_published(shared: Callable[[str], Path], cache, monkeypatch):
    """91 of 100 photographs, one a class of ImageNet, as under timm's own transform."""
    folder, archive = shared("weights/tf_efficientnet_lite0"), shared("data/photos-100.zip")
    monkeypatch.setenv("VITRAIL_CACHE", str(cache))
    model = load(published_model(str(folder)).path)
    names = class_names((), 1000)
    by_id = dict(zip(names.ids, names.names, strict=True))
    with ZipFile(archive) as photographs:
        files = sorted(name for name in photographs.namelist() if name.endswith(".JPEG"))
        answers = [model.predict(photographs.read(name))[0].label for name in files]
    truths = [by_id[Path(name).name.partition("_")[0]] for name in files]
    assert len(files) == 100
    assert sum(answer == truth for answer, truth in zip(answers, truths, strict=True)) == 91
    assert (model.header.licence, model.header.name) == ("apache-2.0", "tf_efficientnet_lite0")
