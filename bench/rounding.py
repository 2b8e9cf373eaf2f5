"""Where bf16 pays in training: forward and backward of encoders of growing cost, float32 and bf16 in turn."""

from __future__ import annotations

import sys
import time
from statistics import median

import torch

from bench.pairs import machine
from vitrail.models.factory import count_macs, create_encoder
from vitrail.runs.device import autocast

CASES = (
    ("vit_digits", 32, 64), ("resnet10t", 32, 64), ("vit_ti16", 64, 32), ("resnet10t", 176, 16), ("vit_s16", 96, 32),
    ("vit_ti16", 224, 16), ("resnet50", 160, 16), ("vit_s16", 224, 16), ("swin_t", 224, 8),
)  # fmt: skip


def seconds(network, images, precision: str) -> float:
    """Return the seconds of one forward and backward."""
    began = time.perf_counter()
    with autocast(images.device, precision):
        loss = network(images).tokens.x.float().square().mean()
    loss.backward()
    network.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(machine())
    print(
        "| network | px | images | GMAC an image | bf16 is faster by (median, min … max) |\n|---|---|---|---|---|"
    )
    for name, size, count in CASES:
        network = create_encoder(name, image=size).train()
        images = torch.randn(count, 3, size, size)
        for precision in ("float32", "bf16"):
            seconds(network, images, precision)
        ratios = [
            seconds(network, images, "float32") / seconds(network, images, "bf16") for _ in range(rounds)
        ]
        cost = count_macs(network, size) / 1e9
        print(
            f"| {name} | {size} | {count} | {cost:.3g} | {median(ratios):.2f} "
            f"({min(ratios):.2f} … {max(ratios):.2f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
