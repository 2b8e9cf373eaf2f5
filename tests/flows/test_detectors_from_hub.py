"""Detectors as the hub has them: fetched from a server that answers as it does, they answer as under transformers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub  # noqa: F401  (it reads HF_HUB_OFFLINE once, so before a test sets it)
import numpy as np
import pytest
import torch
from hub_server import Hub
from PIL import Image
from safetensors.torch import load_file
from scenes import boxed
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    ResNetConfig,
    RfDetrConfig,
    RfDetrForInstanceSegmentation,
    RfDetrForObjectDetection,
    RfDetrImageProcessor,
)

from vitrail.core import catalog
from vitrail.weights.detectors import BY_ANALOGY, DETECTORS
from vitrail.weights.resolve import find_weights

NAMES = {0: "N/A", 1: "disc", 2: "square", 3: "N/A", 4: "ring"}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small RF-DETR of transformers with random numbers, as its hub has it."""
    folder = tmp_path_factory.mktemp("theirs") / "net"
    backbone = {
        "model_type": "rf_detr_dinov2", "hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3,
        "image_size": 64, "patch_size": 8, "num_windows": 2, "out_features": ["stage2", "stage4"],
    }  # fmt: skip
    config = RfDetrConfig(
        backbone_config=backbone, d_model=32, decoder_layers=2, decoder_ffn_dim=40, decoder_n_points=2,
        decoder_self_attention_heads=1, decoder_cross_attention_heads=2, num_queries=9, group_detr=3, id2label=NAMES,
        intermediate_size=128,
    )  # fmt: skip
    torch.manual_seed(0)
    network = RfDetrForObjectDetection(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    network.save_pretrained(folder)
    RfDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture
def hub(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for path in theirs.iterdir():
        for repo in ("them/net", "Roboflow/rf-detr-nano"):
            server.files[f"{repo}/resolve/main/{path.name}"] = path.read_bytes()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boxed(tmp_path_factory.mktemp("shapes") / "shapes", 24)


def answers(vitrail: Any, *words: object) -> Any:
    done = vitrail("predict", *words, "--threshold", "0", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)[0]["boxes"], done.stderr


def test_a_repository_answers_as_under_transformers(vitrail, hub, theirs, data):
    path = data / "images" / "0.png"
    found, said = answers(vitrail, "them/net", path)
    assert "the outputs 0, 3 stand for no class, and are called unused 0, unused 3" in said
    assert not {box["class"] for box in found} & {"unused 0", "unused 3"}
    image = Image.open(path).convert("RGB")
    processor, network = (
        kind.from_pretrained(theirs) for kind in (RfDetrImageProcessor, RfDetrForObjectDetection)
    )
    with torch.no_grad():
        output = network.eval()(processor(image, return_tensors="pt").pixel_values)
    logits = output.logits[0][:, [1, 2, 4]].sigmoid()
    best = int(logits.amax(-1).argmax())
    assert found[0]["class"] == ("disc", "square", "ring")[int(logits[best].argmax())]
    assert found[0]["confidence"] == pytest.approx(float(logits[best].max()), abs=5e-3)
    x, y, width, height = (output.pred_boxes[0, best] * torch.tensor([64, 48, 64, 48])).tolist()
    wanted = np.clip([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 0, [64, 48, 64, 48])
    sides = [found[0][side] for side in ("left", "top", "right", "bottom")]
    np.testing.assert_allclose(sides, wanted, atol=0.5)
    asked = len(hub.ranges)
    assert answers(vitrail, "them/net", path)[0] == found
    assert len(hub.ranges) == asked, "the second time nothing is fetched"


def test_our_name_stands_for_the_repository_with_its_licence(vitrail, hub, data):
    found, said = answers(vitrail, "rf_detr_n", data / "images" / "0.png")
    assert said.startswith("rf_detr_n: the weights rf_detr_n.coco, licence apache-2.0\n")
    assert answers(vitrail, "rf_detr_n.coco", data / "images" / "0.png")[0] == found
    weights = find_weights("rf_detr_n")
    assert (weights.task, weights.name, weights.licence) == ("detect", "rf_detr_n.coco", "apache-2.0")
    listed = json.loads(vitrail("weights", "rf_detr_n*", "--json").stdout)
    row = {
        "name": "rf_detr_n.coco",
        "model": "rf_detr_n",
        "task": "detect",
        "where": "here",
        "licence": "apache-2.0",
    }
    assert row in listed


def test_a_training_begins_with_it(vitrail, hub, data, tmp_path):
    words = (
        "--epochs",
        1,
        "--batch",
        8,
        "--set",
        "queries=9",
        "precision=float32",
        "--out",
        tmp_path / "run",
    )
    done = vitrail("train", data, "--weights", "rf_detr_n", *words)
    assert done.returncode == 0, done.stderr
    assert "head of rf_detr_n.coco: " in done.stderr
    assert "2 classes by name (disc, square)" in done.stderr
    assert "new:" not in done.stderr


def test_masks_of_objects_answer_too(vitrail, hub, theirs, data, tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "seg"
    RfDetrForInstanceSegmentation(RfDetrConfig.from_pretrained(theirs)).save_pretrained(folder)
    RfDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    for path in folder.iterdir():
        hub.files[f"them/seg/resolve/main/{path.name}"] = path.read_bytes()
    done = vitrail("predict", "them/seg", data / "images" / "0.png", "--threshold", "0", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["objects"]
    assert find_weights("them/seg").task == "instances"


def test_detr_answers_by_the_name_of_its_repository(vitrail, hub, data, tmp_path):
    """The backbone is transformers' own ResNet, so that nothing else is needed."""
    torch.manual_seed(0)
    folder, repo = tmp_path / "detr", "facebook/detr-resnet-50"
    backbone = ResNetConfig(
        hidden_sizes=[32, 64, 128, 256], depths=[1, 1, 1, 1], layer_type="bottleneck", out_features=["stage4"]
    )
    sizes = dict.fromkeys(("encoder_layers", "decoder_layers"), 1)
    sizes |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "d_model"), 64)
    config = DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone_config=backbone, num_queries=5, id2label=NAMES,
        **sizes,
    )  # fmt: skip
    DetrForObjectDetection(config).save_pretrained(folder)
    DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    for path in folder.iterdir():
        hub.files[f"{repo}/resolve/main/{path.name}"] = path.read_bytes()
    found, _ = answers(vitrail, repo, data / "images" / "0.png")
    assert found[0]["class"] in ("disc", "square", "ring", "unused 0", "unused 3")
    assert answers(vitrail, "detr_r50", data / "images" / "0.png")[0] == found
    listed = json.loads(vitrail("weights", "detr*", "--json").stdout)
    assert {row["name"]: row["where"] for row in listed}["detr_r50.coco"] == "here"
    assert {row["model"] for row in listed} <= set(catalog.presets("detr*"))


def test_whole_detectors_are_converted_both_ways(vitrail, theirs, tmp_path):
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.safetensors"
    assert vitrail("convert", theirs, "--out", ours).returncode == 0
    assert vitrail("convert", ours, "--to", "huggingface", "--out", back).returncode == 0
    before, after = load_file(theirs / "model.safetensors"), load_file(back)
    assert {name for name in before if not name.endswith("mask_token")} <= after.keys()
    assert all(torch.equal(before[name], after[name]) for name in after)
    found = find_weights(str(back))
    assert (found.task, found.labels) == ("detect", tuple(NAMES.values()))


def test_names_of_detectors_are_networks_of_ours():
    for row in DETECTORS:
        family = next(
            (name for name in ("rf_detr", "detr", "eomt", "clip") if row.name.startswith(f"{name}_")), None
        )
        assert family is not None
        if family in catalog.ARCHITECTURES:
            assert catalog.family_of(row.model) == family, row.name
    assert set(BY_ANALOGY) < {row.repo for row in DETECTORS}
    assert len({row.name for row in DETECTORS}) == len({row.repo for row in DETECTORS}) == len(DETECTORS)
