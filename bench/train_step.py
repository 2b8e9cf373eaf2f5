"""One training step of ViT-S/16, 224 px, batch 32: ours beside timm's network, compiled and eager, in turn.

Each runs in a process of its own, as its users run it.
"""

from __future__ import annotations

import sys
from functools import partial

import timm
import torch
import torch.nn.functional as F

from bench.apart import apart_in_turn
from bench.pairs import machine, table
from vitrail.data.loader import Order
from vitrail.data.sample import Batch
from vitrail.runs.assemble import assemble
from vitrail.runs.recipe import compose
from vitrail.training.loop import steps
from vitrail.training.setup import accelerator_for, open_session

BATCH, CLASSES = 32, 10


def ours(precision: str, compiled: bool):
    """Return our own loop's step: what `vitrail train` runs, without the average and the clipping timm lacks."""
    settings = {
        "data": {"source": "none"},
        "model": {"name": "vit_s16", "imgsz": (224, 224), "drop_path": 0.0},
        "task": {"settings": {"mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0}},
        "training": {
            "batch": BATCH, "micro": BATCH, "precision": precision, "compile": compiled, "ema": 0.0, "clip": 0.0,
            "device": "cpu",
        },
    }  # fmt: skip
    network, task = assemble(compose("scratch_small", settings), [str(i) for i in range(CLASSES)])
    recipe = compose("scratch_small", settings)
    session = open_session(recipe, network, task, Order(BATCH, BATCH, 0), accelerator_for("cpu"))
    batch = Batch(torch.randn(BATCH, 3, 224, 224), [i % CLASSES for i in range(BATCH)], tuple("x" * BATCH))

    def step() -> None:
        next(steps(session, iter([batch]), lambda: False))

    return step


def timms(bf16: bool, compiled: bool):
    """Return a step of timm's network with fused AdamW, as its own training script computes it."""
    network = timm.create_model("vit_small_patch16_224", num_classes=CLASSES).train()
    run = torch.compile(network) if compiled else network
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    images = torch.randn(BATCH, 3, 224, 224)
    targets = torch.arange(BATCH) % CLASSES

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(run(images), targets)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    print(machine())
    things = {
        "ours, compile + bf16": partial(ours, "bf16", True),
        "timm, compile + bf16": partial(timms, True, True),
        "ours, eager bf16": partial(ours, "bf16", False),
        "timm, eager bf16": partial(timms, True, False),
        "timm, eager float32": partial(timms, False, False),
    }
    print(table(apart_in_turn(things, rounds), "ours, compile + bf16", "images", BATCH))


if __name__ == "__main__":
    main()
