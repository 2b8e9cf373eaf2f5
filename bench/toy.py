"""A model file and a folder of photographs, for benches that need both.

The photographs are windows of scikit-learn's two. The network has random weights but for its head, which is fitted to
say from which of the two a window is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from sklearn.linear_model import LogisticRegression

from vitrail.data.preprocess import Preprocess
from vitrail.models.factory import describe
from vitrail.runs.model_file import Header, write_model
from vitrail.runs.network import Network, build_network, build_task, create_model
from vitrail.runs.proof import answer

WIDTH, HEIGHT = 500, 375
SHOWN = 64
"""Windows that the head is fitted to."""


class Window(NamedTuple):
    """A piece of a photograph, and of which, 0 or 1."""

    image: Image.Image
    label: int


def windows(number: int, seed: int = 0) -> Iterator[Window]:
    """Yield windows, alternating between the photographs."""
    draw = np.random.default_rng(seed)
    scenes = [Image.fromarray(image) for image in load_sample_images().images]
    for i in range(number):
        scene = scenes[i % 2]
        left, top = int(draw.integers(0, scene.width - WIDTH)), int(draw.integers(0, scene.height - HEIGHT))
        yield Window(scene.crop((left, top, left + WIDTH, top + HEIGHT)), i % 2)


def model(folder: Path, name: str, side: int = 224, task_name: str = "classify") -> Path:
    """Write a network that tells the windows apart, as a training writes it."""
    torch.manual_seed(0)
    task = build_task(task_name, ["china", "flower"], {})
    steps = Preprocess((side, side))
    network = build_network(create_model(name, 2, image=steps.size).encoder, task).eval()
    _fit(network, steps)
    header = Header(
        name=name,
        encoder=describe(network.encoder),
        task={"name": task_name, "labels": list(task.labels), "settings": task.settings.model_dump()},
        preprocess=steps.to_dict(),
        proof=answer(network, task, steps),
    )
    path = folder / f"{name}.safetensors"
    write_model(path, network, header)
    return path


@torch.inference_mode()
def _fit(network: Network, steps: Preprocess) -> None:
    shown = list(windows(SHOWN, seed=1))
    pixels = torch.stack([torch.as_tensor(steps.eval(np.asarray(one.image))[0]) for one in shown])
    pooled = torch.cat([network.head.pool(network.encoder(some)) for some in pixels.split(16)])
    spread = pooled.std() + 1e-6
    fitted = LogisticRegression(C=1.0, max_iter=2000).fit(pooled / spread, [one.label for one in shown])
    weight, bias = torch.as_tensor(fitted.coef_[0]) / spread, torch.as_tensor(fitted.intercept_[0])
    network.head.linear.weight.copy_(torch.stack([-weight, weight]) / 2)
    network.head.linear.bias.copy_(torch.stack([-bias, bias]) / 2)


def photographs(folder: Path, number: int) -> Path:
    """Write windows, each as a JPEG of its own."""
    folder.mkdir(parents=True)
    for i, one in enumerate(windows(number)):
        one.image.save(folder / f"{i:05}.jpg", quality=90)
    return folder
