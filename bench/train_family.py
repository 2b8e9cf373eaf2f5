"""One training step of each of our pages beside timm's own network, both compiled, in turn: 224 px.

`python -m bench.train_family` measures all pairs; `--only swin_t --batch 32 --rounds 20` some. T2T-ViT is not in timm.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import timm
import torch
import torch.nn.functional as F
from torch import nn

from bench.pairs import in_turn, machine, table
from vitrail.runs.device import fast_bf16
from vitrail.runs.network import create_model

CLASSES = 10
PEERS = {
    "vit_s16": "vit_small_patch16_224",
    "vit_r26_s32": "vit_small_r26_s32_224",
    "deit_s16_distilled": "deit_small_distilled_patch16_224",
    "deit3_s16": "deit3_small_patch16_224",
    "dinov2_s14": "vit_small_patch14_dinov2",
    "swin_t": "swin_tiny_patch4_window7_224",
    "mixer_s16": "mixer_s16_224",
}


def step(network: nn.Module, batch: int, device: torch.device) -> Callable[[], None]:
    """Return a training step of a compiled network, by the same fused AdamW for both."""
    network.to(device).train()
    run = torch.compile(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    images = torch.randn(batch, 3, 224, 224, device=device)
    truth = torch.arange(batch, device=device) % CLASSES
    bf16 = fast_bf16(device)

    def once() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(run(images), truth)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        float(loss.detach())  # waits for a GPU

    return once


def theirs(name: str) -> nn.Module:
    """Return timm's network at 224 px, whatever size it was made for."""
    size = {"img_size": 224} if "dinov2" in name else {}
    network: nn.Module = timm.create_model(name, num_classes=CLASSES, **size)
    return network


def main() -> None:
    words = argparse.ArgumentParser(prog="bench.train_family")
    words.add_argument("--only", nargs="*", choices=PEERS, default=list(PEERS))
    words.add_argument("--batch", type=int, default=16)
    words.add_argument("--rounds", type=int, default=10)
    asked = words.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(machine())
    print(f"{device}, batch {asked.batch}, {'bf16' if fast_bf16(device) else 'float32'}, both compiled")
    for ours in asked.only:
        torch.compiler.reset()
        things = {
            f"ours, {ours}": step(create_model(ours, CLASSES, image=(224, 224)), asked.batch, device),
            f"timm, {PEERS[ours]}": step(theirs(PEERS[ours]), asked.batch, device),
        }
        print(table(in_turn(things, asked.rounds), f"ours, {ours}", "images", asked.batch), flush=True)


if __name__ == "__main__":
    main()
