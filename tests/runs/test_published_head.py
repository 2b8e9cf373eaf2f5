"""Published detectors as model files: the head exactly, the classes by their names, and clear refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vitrail.core.errors import WeightsError
from vitrail.data.preprocess import Preprocess
from vitrail.data.truth import Truth
from vitrail.infer.predictor import load
from vitrail.models.factory import create_encoder, describe
from vitrail.runs.class_layers import class_layers, count_classes
from vitrail.runs.model_file import Header, write_model
from vitrail.runs.network import Network, build_network, build_task
from vitrail.runs.proof import answer
from vitrail.runs.published import published_model
from vitrail.runs.published_head import with_own_head
from vitrail.weights.class_names import object_names, things_of
from vitrail.weights.convert import convert
from vitrail.weights.pretrained import Pretrained, from_path

SIZES = {"width": 32, "hidden": 48, "layers": 2, "queries": 7, "groups": 2, "anchor": 0.1}
NAMES = ("disc", "square", "N/A")


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path_factory.mktemp("cache")))


def detector(names: tuple[str, ...] = NAMES, seed: int = 0, **sizes: Any) -> Network:
    """Return a small detector with random numbers everywhere."""
    torch.manual_seed(seed)
    network = build_network(create_encoder("vit_digits"), build_task("detect", names, {**SIZES, **sizes}))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def published(folder: Path, network: Network, names: tuple[str, ...] = NAMES, **sizes: Any) -> Path:
    """Write a detector of ours as weights without classes that anybody could ask, as `convert` writes them."""
    task = build_task("detect", names, {**SIZES, **sizes})
    steps = Preprocess.for_size(network.encoder.image_size, network.encoder.config.channels)
    stored = {
        "name": "detect", "labels": list(names), "truth": task.truth.to_dict(), "settings": task.settings.model_dump(),
    }  # fmt: skip
    header = Header(
        name="tiny", encoder=describe(network.encoder), task=stored, preprocess=steps.to_dict(),
        proof=answer(network, task, steps),
    )  # fmt: skip
    write_model(folder / "model.safetensors", network, header)
    convert(folder / "model.safetensors", folder / "tiny.safetensors")
    return folder / "tiny.safetensors"


def test_the_head_is_that_of_the_weights_and_the_unused_output_never_answers(tmp_path):
    network = detector()
    path = published(tmp_path, network)
    made = published_model(str(path))
    assert any("the output 2 stands for no class, and is called unused 2" in note for note in made.notes)
    predictor = load(made.path)
    assert predictor.labels == ("disc", "square", "unused 2")
    inputs = {"images": torch.rand(2, network.encoder.config.channels, *network.encoder.image_size)}
    with torch.no_grad():
        ours, theirs = predictor.network(inputs), network(inputs)
    assert ours["logits"][..., 2].max() == -50.0
    torch.testing.assert_close(ours["boxes"], theirs["boxes"])
    torch.testing.assert_close(ours["logits"][..., :2], theirs["logits"][..., :2])
    torch.testing.assert_close(ours["proposals"], theirs["proposals"])


def test_weights_keep_task_classes_and_settings_through_our_own_layout(tmp_path):
    found = from_path(published(tmp_path, detector()))
    assert (found.task, found.labels) == ("detect", NAMES)
    assert SIZES.items() <= found.settings.items()


def test_a_head_that_does_not_fit_is_refused_with_its_tensors(tmp_path):
    path = published(tmp_path, detector())
    tensors = load_file(path)
    with safe_open(path, framework="pt") as handle:
        metadata = handle.metadata()
    first, second = tmp_path / "fewer.safetensors", tmp_path / "wider.safetensors"
    save_file({k: t for k, t in tensors.items() if k != "head.decoder.norm.bias"}, first, metadata=metadata)
    with pytest.raises(
        WeightsError, match=r"decoder\.norm\.bias is missing\. Their network alone can be trained"
    ):
        published_model(str(first))
    header = json.loads(metadata["vitrail_encoder"])
    header["task"]["settings"]["hidden"] = 64
    save_file(tensors, second, metadata={"vitrail_encoder": json.dumps(header)})
    with pytest.raises(WeightsError, match=r"feed\.0\.bias is \(48,\) where \(64,\) is wanted"):
        published_model(str(second))
    header["task"]["settings"]["hiden"] = 64
    save_file(tensors, second, metadata={"vitrail_encoder": json.dumps(header)})
    with pytest.raises(WeightsError, match=r"is not supported: .*hiden"):
        published_model(str(second))


def test_a_panoptic_head_needs_to_know_its_things():
    names, things = ("disc", "sky", "square"), ("disc", "square")
    task = build_task("panoptic", Truth("panoptic", names, things=things), SIZES)
    network = build_network(create_encoder("vit_digits"), task)
    found = Pretrained(
        "theirs", network.encoder.config, network.encoder.state_dict(), network.head.state_dict(), "own",
        labels=names, task="panoptic", settings=task.settings.model_dump(), things=things,
    )  # fmt: skip
    answering = with_own_head(found)
    assert (answering.task.labels, answering.task.truth.things) == (names, things)
    for name, tensor in answering.network.head.state_dict().items():
        torch.testing.assert_close(tensor, found.head[name])
    with pytest.raises(WeightsError, match="do not state which of their 3 classes are single objects"):
        with_own_head(replace(found, things=()))
    assert len(things_of([f"class {number}" for number in range(133)])) == 80


def test_class_layers_are_found_from_the_head_itself():
    network = detector()
    layers = class_layers(network.encoder, "detect", SIZES)
    assert set(layers) == {
        f"decoder.{part}classes.{kind}" for part in ("", "proposers.0.", "proposers.1.") for kind in ("weight", "bias")
    }  # fmt: skip
    assert not any(layers.values())
    assert count_classes(network.head.state_dict(), layers) == 3
    assert count_classes({}, layers) == 0


def test_names_of_91_numbers_are_those_of_coco():
    names = object_names((), 91)
    assert (names.names[1], names.names[12], names.names[90]) == ("person", "unused 12", "toothbrush")
    assert (len(names.unused), len(set(names.names))) == (11, 91)
    assert object_names((), 80).names[11] == "stop sign"
    assert object_names((), 80).unused == ()
    assert object_names(("a", "a", ""), 3).names == ("a (class 0)", "a (class 1)", "unused 2")
    assert object_names((), 5).assumed == "it does not name its classes"
    assert object_names(("a",), 5).assumed == "it names 1 class for 5 outputs, which are numbered"
