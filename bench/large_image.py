"""The memory that a large image takes: 24 megapixels, 21 classes, ViT-S/14 at 448 px, whole and in windows.

`python -m bench.large_image`: for each, a process of its own opens the model, answers a small image, and then writes
the files of the large one; told is how far its memory went above what it was before the large one, and the seconds.
The weights are random, which changes no cost.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench.pairs import machine
from vitrail.data.preprocess import Preprocess
from vitrail.models.factory import create_encoder, describe
from vitrail.runs.model_file import Header, write_model
from vitrail.runs.network import build_network
from vitrail.runs.proof import answer
from vitrail.tasks.segment.task import Segment

LARGE, SMALL, SIDE, CLASSES = (6000, 4000), (600, 400), 448, 21
WAYS = {"whole, brought to the input": 0.0, "in windows, at half its scale": 0.5}


def write(path: Path, zoom: float) -> None:
    """Write a model whose answers are those of random weights."""
    torch.manual_seed(0)
    task = Segment([f"class {i}" for i in range(CLASSES)], {"zoom": zoom})
    steps = task.steps(Preprocess((SIDE, SIDE), "squash", 1.0))
    network = build_network(create_encoder("dinov2_s14", image=steps.size), task).eval()
    header = Header(
        name="dinov2_s14",
        encoder=describe(network.encoder),
        task={
            "name": "segment",
            "labels": list(task.labels),
            "truth": task.truth.to_dict(),
            "settings": task.settings.model_dump(),
        },
        preprocess=steps.to_dict(),
        proof=answer(network, task, steps),
    )
    write_model(path, network, header)


def measure(model: str, small: str, large: str) -> None:
    """Print the bytes above those of the model with a small image, and the seconds of the large one."""
    from vitrail.infer.predictor import Predictor

    predictor = Predictor(model)
    predictor.predict([small])
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    [areas] = predictor.predict([large])
    assert areas.mask.shape == LARGE[::-1]
    took = time.perf_counter() - began
    print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before), took)


def main() -> None:
    if len(sys.argv) > 1:
        measure(*sys.argv[1:])
        return
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        place, rng = Path(folder), np.random.default_rng(0)
        for name, (width, height) in (("small", SMALL), ("large", LARGE)):
            noise = rng.integers(0, 256, (height // 50, width // 50, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(
                place / f"{name}.jpg"
            )
        for way, zoom in WAYS.items():
            write(place / "model.safetensors", zoom)
            words = [place / "model.safetensors", place / "small.jpg", place / "large.jpg"]
            done = subprocess.run(
                [sys.executable, "-m", "bench.large_image", *map(str, words)],
                capture_output=True,
                text=True,
                check=True,
            )
            memory, took = map(float, done.stdout.split()[-2:])
            print(f"{way}: {memory / 1e9:.2f} GB above the model, {took:.1f} s")


if __name__ == "__main__":
    main()
