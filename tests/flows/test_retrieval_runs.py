"""Images and captions by the command line: train, predict, score, explain, export, resume, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.shape_scenes import pairs
from vitrail.infer.predictor import Predictor, load
from vitrail.infer.words import text_vectors
from vitrail.runs.model_file import read_model
from vitrail.runs.run import open_run
from vitrail.runs.train_options import TrainOptions
from vitrail.training.fit import resume, train

pytest.importorskip("tokenizers")

SETTINGS = "text_width=12,text_depth=1,text_heads=3,embed=8,context=12,vocabulary_size=300"
NETWORK = "image=[16,16],patch=4,width=12,depth=2,heads=3"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return pairs(tmp_path_factory.mktemp("pairs") / "data", {"train": 48, "val": 12, "test": 16}, side=16)


def options(out, **more):
    return TrainOptions(
        task="retrieve", model="vit_ti16", weights="none", network=NETWORK, imgsz="16", set=SETTINGS, epochs=2,
        batch=16, device="cpu", workers=0, drop_path=0.0, out=str(out), precision="float32", **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    return train(table, options(tmp_path_factory.mktemp("run") / "run", lr=3e-3)).folder


def test_the_report_has_recall_chance_and_examples_of_both_directions(trained):
    report = json.loads((trained / "report.json").read_text())
    assert set(report["test"]["chance"]) == {
        f"{side}_{k}" for side in ("image_to_text", "text_to_image") for k in (1, 5, 10)
    }
    assert (
        report["test"]["recall1"]["low"] is None
        or report["test"]["recall1"]["low"] <= report["test"]["recall1"]["value"]
    )
    page = (trained / "report.html").read_text()
    assert "Captions of images" in page
    assert "Images for “" in page
    assert (trained / "live.png").is_file()
    assert "recall@1" in (trained / "README.md").read_text()


def test_the_only_augmentation_is_a_square_and_adam_is_that_of_the_paper(trained):
    training = open_run(trained).recipe().training
    assert (training.augment, training.erase, training.weight_decay) == ("square", 0.0, 0.2)
    assert (training.beta2, training.eps) == (0.98, 1e-6)


def test_predictions_are_captions_of_the_training(vitrail, trained, table):
    done = vitrail("predict", trained, table.parent / "images/0070.png", "--json")
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    known = Predictor(trained).task.known.texts
    assert answer["caption"] == answer["top"][0]["caption"]
    assert {one["caption"] for one in answer["top"]} <= set(known)
    assert answer["top"] == sorted(answer["top"], key=lambda one: -one["cosine"])


def test_it_is_scored_again_as_in_its_report(vitrail, trained):
    done = vitrail("eval", trained, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads((trained / "report.json").read_text())
    assert json.loads(done.stdout)["test"]["recall1"] == report["test"]["recall1"]


def test_new_pairs_are_scored(vitrail, trained, tmp_path):
    other = pairs(tmp_path / "new", {"test": 12}, side=16)
    done = vitrail("eval", trained, other, "--html", tmp_path / "new.html")
    assert done.returncode == 0, done.stderr
    assert "caption → image" in done.stdout
    assert "Images for “" in (tmp_path / "new.html").read_text()


def test_any_text_is_explained(vitrail, trained, table, tmp_path):
    image = table.parent / "images/0070.png"
    for method in ("relevance", "occlusion", "rollout"):
        done = vitrail(
            "explain", trained, image, "--of", "a red thing", "--method", method, "--out", tmp_path, "--json"
        )
        assert done.returncode == 0, done.stderr
        (result,) = json.loads(done.stdout)
        assert result["explanations"][0]["of"] == "a red thing"
    done = vitrail("explain", trained, image, "--of", "红色的方块", "--out", tmp_path)
    assert done.returncode
    assert "Chinese" in done.stderr


def test_the_exported_graph_has_the_vectors_of_the_image_tower(vitrail, trained, table, tmp_path):
    pytest.importorskip("onnxruntime")
    file, image = tmp_path / "pairs.onnx", table.parent / "images/0070.png"
    done = vitrail("export", trained, "--out", file)
    assert done.returncode == 0, done.stderr
    graph, predictor = load(file), Predictor(trained)
    ours = predictor.outputs([predictor.ready(image)])["image"]
    torch.testing.assert_close(graph.outputs([graph.ready(image)])["image"], ours, rtol=0, atol=1e-4)
    assert str(graph.predict(image)[0]) == str(predictor.predict(image)[0])
    assert "vocabulary" not in graph.header.task
    done = vitrail("export", trained, "--format", "timm", "--out", tmp_path / "folder")
    assert done.returncode
    assert "Use --format onnx" in done.stderr


def test_a_stopped_training_resumes_bit_by_bit_with_its_vocabulary(table, tmp_path):
    class Stop(Exception):
        pass

    def stop(event):
        if event.kind == "step" and event.step == 4:
            raise Stop

    whole = train(table, options(tmp_path / "whole", lr=3e-3))
    with pytest.raises(Stop):
        train(table, options(tmp_path / "part", lr=3e-3), listeners=[stop])
    part = resume(tmp_path / "part")
    one, other = load_file(whole.state_path), load_file(part.state_path)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    first, second = (read_model(run.model_path).header.task for run in (whole, part))
    assert first["vocabulary"] == second["vocabulary"]
    assert first["known"] == second["known"]


def test_the_sigmoid_loss_is_an_option(table, tmp_path):
    run = train(table, options(tmp_path / "run", loss="sigmoid"))
    predictor = Predictor(run)
    assert predictor.network.head.bias.item() != 0
    np.testing.assert_allclose(np.linalg.norm(text_vectors(predictor, ["a red bar"]), axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--micro", "8"], "compares all images of a batch"),
        (["--set", "vocabulary=nowhere"], "no tokenizer.json"),
        (["--set", "text_width=30"], "cannot have 4 heads"),
        (["--set", "loss=hinge"], "must be one of"),
        (["--tune", "draft"], "draft"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(vitrail, table, words, said):
    fixed = ["--task", "retrieve", "--model", "vit_digits", "--weights", "none", "--imgsz", "16"]
    done = vitrail("train", table, *fixed, *words, "--dry-run")
    assert done.returncode
    assert said in done.stderr
    assert "Traceback" not in done.stderr
