"""What leaving tokens out saves: SuperViT-S, 224 px, batch 16, float32; shares 0.5 and 0.7 beside the whole, in turn.

`python -m bench.keep [--minutes 1]`; the weights are random, which changes no cost.
"""

from __future__ import annotations

import argparse

import torch

from bench.pairs import in_turn, machine, table
from vitrail.infer.timing import ratio
from vitrail.layers.elastic import set_keep
from vitrail.models.factory import count_macs, create_encoder

BATCH, SIDE = 16, 224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    minutes = parser.parse_args().minutes
    torch.manual_seed(0)
    encoder = create_encoder("supervit_s").eval()
    images = torch.randn(BATCH, 3, SIDE, SIDE)

    def forward(keep: float):
        def run() -> None:
            set_keep(encoder, keep)
            with torch.inference_mode():
                encoder(images)

        return run

    shares = (0.5, 0.7, 1.0)
    things = {f"keep {keep:g}": forward(keep) for keep in shares}
    once = sum(seconds[0] for seconds in in_turn(things, 1, warmup=1).values())
    times = in_turn(things, max(5, int(60 * minutes / once)), warmup=1)
    print(machine())
    print(table(times, "keep 0.5", "images", BATCH))
    for keep in shares:
        print(f"keep {keep:g}: {count_macs(encoder, SIDE, keep) / 1e9:.2f} GMACs")
    for keep in shares[:-1]:
        found = ratio(times[f"keep {keep:g}"], times["keep 1"])
        print(f"keep {keep:g} is {found} times as quick as the whole")


if __name__ == "__main__":
    main()
