"""Small models to serve, images to send, and the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pretended import Served, pretended
from scenes import scene

from bench import toy as bench_toy
from bench.fuzz_server import Server, served
from vitrail.cli.main import run
from vitrail.data.preprocess import Preprocess
from vitrail.data.truth import Truth
from vitrail.models.factory import create_encoder
from vitrail.runs.model_file import read_model, write_model
from vitrail.runs.network import build_network, build_task
from vitrail.tasks.detect.task import Detect
from vitrail.tasks.instances.task import SegmentInstances
from vitrail.tasks.segment.task import Segment

BF16 = {"precision": "bf16", "channels_last": False, "engine": "openvino"}
POINTS = ("96px/1", "96px/merge77", "96px/patch8")


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITRAIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("VITRAIL_TOKEN", raising=False)
        yield


@pytest.fixture(scope="session")
def toy(model_file: Callable[..., Path]) -> Callable[..., Path]:
    """Write a random network of a task, with steep heads so that answers differ from image to image."""

    def write(kind: str, size: tuple[int, int] = (48, 64)) -> Path:
        torch.manual_seed(0)
        task = {
            "detect": lambda: Detect(("disc", "square"), {"threshold": 0.3}),
            "instances": lambda: SegmentInstances(("disc", "square"), {"threshold": 0.3, "width": 64}),
            "segment": lambda: Segment(Truth("mask", ("ground", "disc", "box")), {"width": 32}),
        }.get(kind, lambda: build_task(kind, ("cat", "dog", "2", "图"), {}))()
        encoder = create_encoder("vit_digits", image=size, settings={"depth": 2})
        network = build_network(encoder, task).eval()
        with torch.no_grad():
            for name, tensor in network.head.named_parameters():
                if name.endswith("weight") and tensor.ndim == 2:
                    tensor *= 20 if kind in ("classify", "multilabel") else 1
        return model_file("vit_digits", network, task, Preprocess(size))

    return write


@pytest.fixture(scope="session")
def dialled(toy: Callable[..., Path]) -> Path:
    """A classifier whose operating points were measured with bf16 through OpenVINO."""
    path = toy("classify", (96, 96))
    header, tensors = read_model(path)

    class Stored(torch.nn.Module):
        def state_dict(self) -> Any:
            return tensors

    rows = [
        {
            "point": point,
            "task": {"settings": {"temperature": 1.0 + place}},
            "score": {"value": 0.9 - 0.1 * place, "low": 0.5, "high": 0.95},
            "images_per_second": 100.0 * 2**place,
            "latency_ms": 20.0,
            "beaten_by": "",
            "backend": BF16,
        }
        for place, point in enumerate(POINTS)
    ]
    write_model(path, Stored(), header.model_copy(update={"points": rows}))
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five images of several sizes and formats, and names that are not plain."""
    folder = tmp_path_factory.mktemp("pictures")
    names = ("a.png", "b é 图.jpg", "c d.webp", "-e.png", "f.jpg")
    for number, name in enumerate(names):
        pixels = scene(number, (48 + 10 * number, 64))[0]
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / name, quality=90)
    return [folder / name for name in names]


@pytest.fixture
def predict(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    """Return what `vitrail predict … --json` says."""

    def call(*words: object) -> list[dict[str, Any]]:
        capsys.readouterr()
        code = run(["predict", *map(str, words), "--json"])
        told = capsys.readouterr()
        assert code == 0, told.err
        found: list[dict[str, Any]] = json.loads(told.out)
        return found

    return call


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file: a small network that tells two photographs apart."""
    return bench_toy.model(tmp_path_factory.mktemp("tiny"), "vit_digits", 32)


@pytest.fixture(scope="session")
def tiny_server(tiny_model: Path) -> Iterator[Server]:
    """`vitrail serve` with that model and a token; it takes at most two seconds for a body."""
    with served(tiny_model, seconds=2) as server:
        yield server


@pytest.fixture(scope="module")
def plain() -> Iterator[Served]:
    """Return a server with pretended workers for tests that leave it as it was."""
    with pretended() as served:
        yield served
