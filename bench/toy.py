"""A model file with random weights and a folder of photographs, for benches that need both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from vitrail.data.preprocess import Preprocess
from vitrail.models.create import describe
from vitrail.runs.assemble import build_task, create_model, join
from vitrail.runs.model_file import Header, write_model
from vitrail.runs.proof import answer


def model(folder: Path, name: str, classes: int = 10, side: int = 224) -> Path:
    """Write a random network with ten classes, whose answers differ from picture to picture."""
    torch.manual_seed(0)
    task = build_task("classify", [str(i) for i in range(classes)], {})
    steps = Preprocess((side, side))
    network = join(create_model(name, classes, image=steps.size).encoder, task).eval()
    header = Header(
        name=name,
        encoder=describe(network.encoder),
        task={"name": "classify", "labels": list(task.labels), "settings": task.settings.model_dump()},
        preprocess=steps.to_dict(),
        proof=answer(network, task, steps),
    )
    path = folder / f"{name}.safetensors"
    write_model(path, network, header)
    return path


def photographs(folder: Path, number: int) -> Path:
    """Write windows of 500 x 375 out of scikit-learn's two photographs, each as a JPEG of its own."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    scenes = [Image.fromarray(image) for image in load_sample_images().images]
    for i in range(number):
        scene = scenes[i % 2]
        left, top = int(draw.integers(0, scene.width - 500)), int(draw.integers(0, scene.height - 375))
        scene.crop((left, top, left + 500, top + 375)).save(folder / f"{i:05}.jpg", quality=90)
    return folder
