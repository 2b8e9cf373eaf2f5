"""The model file: it is complete and proven, and a broken one is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vitrail.core.errors import RunError, SettingError
from vitrail.data.preprocess import Preprocess
from vitrail.infer.predictor import Predictor
from vitrail.runs.network import build_network, build_task, create_model
from vitrail.runs.proof import TOLERANCE, _on_cpu, drift, picture
from vitrail.runs.run import open_run


@pytest.fixture
def model(model_file):
    """The model file of a random network."""
    torch.manual_seed(0)
    task = build_task("classify", ["2", "10", "图"], {})
    network = build_network(create_model("vit_digits", 3).encoder, task).eval()
    return model_file("vit_digits", network, task, Preprocess.for_size(32))


def changed(path, change):
    """Write the file again with a changed header."""
    with safe_open(path, framework="pt") as handle:
        header = json.loads(handle.metadata()["vitrail"])
    change(header)
    tensors = {key: value.clone() for key, value in load_file(path).items()}
    save_file(tensors, path, metadata={"vitrail": json.dumps(header)})


def test_opened_again_it_answers_as_before_and_keeps_its_labels(model):
    predictor = Predictor(model)
    assert predictor.labels == ("2", "10", "图")
    assert predictor.proof_drift < 1e-6
    assert sum(predictor(picture())[0].probabilities) == pytest.approx(1)


def test_the_proof_picture_follows_its_formula():
    pixels = picture()
    assert pixels.shape == (61, 47, 3)
    assert pixels[60, 46, 2] == (31 * 60 + 17 * 46 + 57 * 2 + 3 * ((60 * 46) % 29)) % 256
    assert pixels[0, 0].tolist() == [0, 57, 114]


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["task"]["labels"].reverse() or h["task"]["settings"].update(temperature=3.0),
        lambda h: h["preprocess"].update(mean=[0.5, 0.5, 0.5]),
        lambda h: h["preprocess"].update(fit="crop", crop_fraction=0.5),
        lambda h: h["encoder"]["config"].update(gelu="tanh", heads=2),
        lambda h: h.update(proof=[]),
        lambda h: h.update(proof=[0.5, 0.5]),
    ],
)
def test_a_file_that_answers_otherwise_is_refused(model, change):
    changed(model, change)
    with pytest.raises(RunError, match="proof"):
        Predictor(model)


def test_changed_weights_are_refused(model):
    with safe_open(model, framework="pt") as handle:
        metadata = handle.metadata()
    tensors = {key: value.clone() for key, value in load_file(model).items()}
    tensors["head.linear.weight"][0] *= 1.5
    save_file(tensors, model, metadata=metadata)
    with pytest.raises(RunError, match="proof image"):
        Predictor(model)


def test_broken_foreign_and_later_files_are_refused_in_plain_words(model, tmp_path):
    whole = model.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match="not a complete model file"):
        Predictor(cut)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    with pytest.raises(RunError, match="no vitrail header"):
        Predictor(foreign)
    changed(model, lambda h: h.update(format=99))
    with pytest.raises(RunError, match="format 99"):
        Predictor(model)


def test_what_is_no_model_at_all_is_told_what_one_is(model, tmp_path):
    script, numbers = tmp_path / "mk.py", tmp_path / "digits.bin"
    script.write_text("print('not a model, whatever its header would be')")
    numbers.write_bytes(script.read_bytes())
    for wrong in (script, numbers):
        with pytest.raises(RunError, match=r"not a model file. Name a run folder, a model\.safetensors"):
            Predictor(wrong)
    numbers.with_suffix(".xml").touch()
    with pytest.raises(RunError, match=r"Name .*digits\.xml"):
        Predictor(numbers)


def test_a_folder_that_is_no_run_is_told_which_are(tmp_path):
    with pytest.raises(RunError, match="such as runs/photos"):
        open_run(tmp_path)
    for number in range(7):
        (tmp_path / f"run-{number}").mkdir()
        (tmp_path / f"run-{number}" / "recipe.yaml").touch()
    with pytest.raises(RunError, match=r"wrote: .*run-0, .*run-4 and 2 more\."):
        open_run(tmp_path)
    with pytest.raises(RunError, match=r"wrote: .*run-0, .*run-4 and 2 more\."):
        open_run(tmp_path / "nosuch")


def test_a_missing_tensor_is_named(model):
    with safe_open(model, framework="pt") as handle:
        metadata = handle.metadata()
    tensors = {key: value.clone() for key, value in load_file(model).items() if key != "head.linear.bias"}
    save_file(tensors, model, metadata=metadata)
    with pytest.raises(RunError, match=r"head\.linear\.bias"):
        Predictor(model)


def test_an_unknown_device_is_refused(model):
    with pytest.raises(SettingError, match="cuda:7"):
        Predictor(model, "cuda:7")


def test_arrays_images_and_files_of_any_size_are_answered(model):
    predictor = Predictor(model)
    draw = np.random.default_rng(0)
    sizes = [(1, 1), (17, 23), (300, 40), (640, 480)]
    answers = predictor([draw.integers(0, 255, (*size, 3), dtype=np.uint8) for size in sizes])
    assert len(answers) == len(sizes)
    assert all(sum(one.probabilities) == pytest.approx(1, abs=1e-5) for one in answers)


def test_a_network_elsewhere_is_proven_on_a_copy_here():
    """A network on a GPU is copied tensor by tensor; the copy gives the same output."""
    network = create_model("resnet10t", 3).eval()
    copy = _on_cpu(network)
    assert copy is not network
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(copy(images), network(images), rtol=0, atol=0)
    assert {name for name, _ in copy.named_parameters()} == {name for name, _ in network.named_parameters()}
    assert [name for name, _ in copy.named_buffers()] == [name for name, _ in network.named_buffers()]


def test_a_number_that_is_none_is_never_near():
    assert drift([0.25, 0.5], [0.25, 0.75]) == 0.25
    assert drift([0.5], [0.5, 0.5]) == float("inf")
    assert drift([], []) == 0
    assert not drift([0.1, 0.2], [0.1, float("nan")]) <= TOLERANCE
