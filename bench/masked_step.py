"""The cost of a step of masked pretraining: three quarters hidden, against the same step with every patch encoded.

`python -m bench.masked_step [--models mae_s16,mae_b16] [--batch 16] [--rounds 7] [--bf16] [--mask 0.75]`

Forward, loss and backward of the task `pretrain` at 224 px, in turn in one process: with the hidden patches dropped
before the first block, and with the encoder of all patches before the same decoder. Once with the decoder, and once for
the encoder alone. Prints medians and the paired ratio with its interval.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from bench.pairs import in_turn, machine, ratio, table
from vitrail.core.malloc import hold_memory
from vitrail.layers.encoder import KEPT
from vitrail.layers.masked_decoder import patchify
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network, build_task
from vitrail.tasks.pretrain.loss import squared_error, wanted
from vitrail.tasks.pretrain.masks import count_seen, drawn, hidden_of
from vitrail.tasks.pretrain.task import PATCHES


def whole_step(
    network: torch.nn.Module, images: torch.Tensor, kept: torch.Tensor, masked: bool, bf16: bool
) -> None:
    """Run a step with the decoder, on the patches that are kept or on all; the loss is that of the hidden ones."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        predicted = network({"images": images, KEPT: kept} if masked else {"images": images})[PATCHES]
    side = network.encoder.spec.strides[-1]
    true = wanted(patchify(images, side), True)
    squared_error(predicted, true, hidden_of(kept, true.shape[1])).mean().backward()


def encoder_step(
    encoder: torch.nn.Module, images: torch.Tensor, kept: torch.Tensor, masked: bool, bf16: bool
) -> None:
    """Run the encoder alone, forward and backward."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        tokens = encoder(images, given={KEPT: kept} if masked else {}).tokens.x
    tokens.float().square().mean().backward()


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="mae_s16,mae_b16")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mask", type=float, default=0.75)
    parser.add_argument("--bf16", action="store_true")
    asked = parser.parse_args()
    hold_memory()
    for name in asked.models.split(","):
        torch.manual_seed(0)
        task = build_task("pretrain", [], {"mask": asked.mask})
        encoder = create_encoder(name)
        network = build_network(encoder, task).train()
        images = torch.randn(asked.batch, 3, 224, 224)
        patches = (224 // encoder.spec.strides[-1]) ** 2
        kept = drawn(asked.batch, patches, count_seen(patches, asked.mask), np.random.default_rng(0))
        things: dict[str, Callable[[], None]] = {
            f"{what}, {which}": partial(run, part, images, kept, masked, asked.bf16)
            for what, run, part in (("step", whole_step, network), ("encoder", encoder_step, encoder))
            for which, masked in (("hidden patches dropped", True), ("all patches encoded", False))
        }
        times = in_turn(things, asked.rounds)
        print(f"\n{name}, batch {asked.batch}, {'bf16' if asked.bf16 else 'float32'}, mask {asked.mask:g}\n")
        print(table(times, "step, hidden patches dropped", "images", asked.batch))
        step, full, alone, every = times.values()
        print(f"\ncost of a step: {ratio(full, step)} of the full one; of the encoder: {ratio(every, alone)}")
    print(machine())


if __name__ == "__main__":
    main()
