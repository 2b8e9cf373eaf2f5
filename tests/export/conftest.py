"""Random networks written as a training writes them, and images to prove exports on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.data.preprocess import Preprocess
from vitrail.export import agreement
from vitrail.models.factory import build, create_encoder
from vitrail.runs.network import build_network, build_task

LABELS = ("2", "10", "图", "cat", "dog")


@pytest.fixture(scope="session")
def written(model_file) -> Callable[..., Path]:
    """Write a random network with steep heads, so that its answers differ from image to image.

    `model` is a name, or the settings of a page: then its size counts, and nothing is left at the zero or one that
    it starts from, where a mistake could hide.
    """

    def write(model, preprocess: Preprocess | None = None, task: str = "classify", **settings) -> Path:
        torch.manual_seed(0)
        asked = build_task(task, LABELS, settings)
        named = isinstance(model, str)
        steps = preprocess or (Preprocess.for_size(32) if named else Preprocess(model.size))
        encoder = create_encoder(model, image=steps.size, channels=steps.channels) if named else build(model)
        network = build_network(encoder, asked).eval()
        with torch.no_grad():
            for tensor in () if named else encoder.parameters():
                if tensor.ndim == 1 or len(tensor) == 1:  # biases, norms, factors, learned tokens, places
                    tensor += 0.2 * torch.randn(tensor.shape)
            for name, tensor in network.head.named_parameters():
                if name.endswith("weight") and name.startswith(("linear", "dist", "dense")):
                    tensor *= 20
        return model_file(model if named else model.family, network, asked, steps)

    return write


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Eight images with something in them, of eight sizes."""
    folder = tmp_path_factory.mktemp("pictures") / "some images"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for i in range(8):
        small = Image.fromarray(draw.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        small.resize((31 + 13 * i, 90 - 7 * i), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny networks on a busy machine wait for their threads more than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def few(monkeypatch):
    """Prove on eight images: for tests of what is written, where others ask the full number of the same graph."""
    monkeypatch.setattr(agreement, "many_sizes", partial(agreement.many_sizes, least=8))
