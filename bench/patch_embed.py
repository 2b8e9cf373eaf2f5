"""Our patch embedding, a matrix product, beside the convolution that it equals (timm's), in turn.

The norm behind it is timed too: a convolution leaves its answer in an order that the next layer must first undo.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import timm.layers
import torch
from torch import Tensor, nn

from bench.pairs import in_turn, machine, table
from vitrail.layers.patch_embedding import PatchEmbed
from vitrail.training.loop import autocast

CASES = (
    ("ViT-S/16", 3, 384, 16),
    ("ViT-S/14", 3, 384, 14),
    ("Swin-T", 3, 96, 4),
    ("ViT-S/16, 12 bands", 12, 384, 16),
)
"""Name, channels, width and pixels of a patch."""


def run(
    embed: Callable[[Tensor], Any], width: int, images: Tensor, precision: str, trains: bool
) -> Callable[[], None]:
    """Return a call of an embedding and a norm behind it, with its backward where it trains."""
    norm = nn.LayerNorm(width)
    gradient = torch.randn(())

    def once() -> None:
        with torch.set_grad_enabled(trains), autocast(images.device, precision):
            tokens = norm(embed(images))
        if trains:
            tokens.backward(gradient.expand_as(tokens))

    return once


def main() -> None:
    words = argparse.ArgumentParser(prog="bench.patch_embed")
    words.add_argument("--batch", type=int, default=32)
    words.add_argument("--size", type=int, default=224)
    words.add_argument("--rounds", type=int, default=20)
    asked = words.parse_args()
    print(machine())
    for name, channels, width, patch in CASES:
        images = torch.randn(asked.batch, channels, asked.size, asked.size)
        product = PatchEmbed(width, patch, channels)
        convolution = timm.layers.PatchEmbed(asked.size, patch, channels, width)
        convolution.proj.load_state_dict(product.project.state_dict())
        for precision in ("float32", "bf16"):
            for trains in (True, False):
                things = {
                    "matrix product": run(lambda x, e=product: e(x).x, width, images, precision, trains),
                    "convolution": run(convolution, width, images, precision, trains),
                }
                print(f"\n{name}, {precision}, {'forward and backward' if trains else 'forward'}")
                print(
                    table(in_turn(things, asked.rounds), "matrix product", "images", asked.batch), flush=True
                )


if __name__ == "__main__":
    main()
