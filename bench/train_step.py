"""One training step of a ViT, 224 px: ours beside timm's network, compiled and eager, in turn.

`python -m bench.train_step [--rounds 10] [--model vit_s16] [--batch 32] [--device cpu]`. Each runs in a process of its
own, as its users run it. The last lines say how much of the machine's measured matmul peak the forward's multiply-adds,
three times over, come to.
"""

from __future__ import annotations

import argparse
from functools import partial
from statistics import median

import timm
import torch
import torch.nn.functional as F

from bench.apart import apart_in_turn
from bench.pairs import machine, table
from vitrail.core.malloc import hold_memory
from vitrail.data.batch import Batch
from vitrail.data.loader import Order
from vitrail.infer.timing import matmul_peak
from vitrail.models.factory import count_macs, create_encoder
from vitrail.runs.device import device_for
from vitrail.runs.network import build_network, build_task
from vitrail.runs.recipe import compose
from vitrail.training.loop import steps
from vitrail.training.session import accelerator_for, open_session

CLASSES = 10
PEERS = {
    "vit_ti16": "vit_tiny_patch16_224",
    "vit_s16": "vit_small_patch16_224",
    "vit_b16": "vit_base_patch16_224",
}


def ours(model: str, batch: int, device: str, precision: str, compiled: bool):
    """Return our own loop's step: what `vitrail train` runs, without the average and the clipping timm lacks."""
    settings = {
        "data": {"source": "none"},
        "model": {"name": model, "imgsz": (224, 224), "drop_path": 0.0},
        "task": {"settings": {"mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0}},
        "training": {
            "batch": batch, "micro": batch, "precision": precision, "compile": compiled, "ema": 0.0, "clip": 0.0,
            "device": device,
        },
    }  # fmt: skip
    hold_memory()
    recipe = compose("scratch_small", settings)
    task = build_task(recipe.task.name, [str(i) for i in range(CLASSES)], recipe.task.settings)
    encoder = create_encoder(model, image=recipe.model.imgsz, drop_path=recipe.model.drop_path)
    network = build_network(encoder, task)
    session = open_session(recipe, network, task, Order(batch, batch, 0), accelerator_for(device))
    pixels = torch.randn(batch, 3, 224, 224, device=device)
    shown = Batch({"images": pixels}, [i % CLASSES for i in range(batch)], tuple("x" * batch))

    def step() -> None:
        next(steps(session, iter([shown]), lambda: False))
        _finish(device)

    return step


def timms(model: str, batch: int, device: str, bf16: bool, compiled: bool):
    """Return a step of timm's network with fused AdamW, as its own training script computes it."""
    network = timm.create_model(PEERS[model], num_classes=CLASSES).to(device).train()
    run = torch.compile(network) if compiled else network
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    images = torch.randn(batch, 3, 224, 224, device=device)
    targets = torch.arange(batch, device=device) % CLASSES

    def step() -> None:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(run(images), targets)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        _finish(device)

    return step


def _finish(device: str) -> None:
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize()


def main() -> None:
    words = argparse.ArgumentParser(prog="bench.train_step")
    words.add_argument("--rounds", type=int, default=10)
    words.add_argument("--model", choices=PEERS, default="vit_s16")
    words.add_argument("--batch", type=int, default=32)
    words.add_argument("--device", default="cpu")
    asked = words.parse_args()
    device = device_for(asked.device)
    print(machine())
    print(f"{asked.model}, batch {asked.batch}, {device}")
    said = asked.model, asked.batch, str(device)
    things = {
        "ours, compile + bf16": partial(ours, *said, "bf16", True),
        "timm, compile + bf16": partial(timms, *said, True, True),
        "ours, eager bf16": partial(ours, *said, "bf16", False),
        "timm, eager bf16": partial(timms, *said, True, False),
        "timm, eager float32": partial(timms, *said, False, False),
    }
    peak = matmul_peak(device, torch.bfloat16)
    macs = 3 * asked.batch * count_macs(create_encoder(asked.model), (224, 224))
    times = apart_in_turn(things, asked.rounds)
    print(table(times, "ours, compile + bf16", "images", asked.batch))
    for name in list(things)[:4]:
        print(f"{name}: {macs / median(times[name]) / peak:.0%} of the measured bf16 peak")


if __name__ == "__main__":
    main()
