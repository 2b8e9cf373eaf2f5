"""From a decoded image to a network's input: ours beside torch's float32 resize, torchvision's and timm's transforms.

`python -m bench resize`, or `python -m bench.resize [ROUNDS]`, by default 15: 224 px out of the middle of 256, bicubic,
one thread, as a loader's process computes it. torchvision and timm resize whole numbers and round them twice; torch's
`interpolate` gives our numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torch.nn.functional import interpolate
from torchvision.transforms import v2

from bench.pairs import in_turn, machine, table
from vitrail.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

TIMES = 8
"""Images of one timing: the first finds the caches full of what another way left there."""

SIZES = ((224, 224), (375, 500), (1200, 1600), (3000, 4000))
OURS = "ours"


def ways(height: int, width: int) -> dict[str, Callable[[], torch.Tensor]]:
    """Return what brings one image of noise to the input, by name."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    steps, opened = Preprocess(), Image.fromarray(image)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    vision = v2.Compose(
        [
            v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(224),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    whole = (int(256 * max(1, height / width)), int(256 * max(1, width / height)))

    def plain() -> torch.Tensor:
        large = interpolate(tensor[None].float(), whole, mode="bicubic", antialias=True)[0]
        return steps.normalise(v2.functional.center_crop(large, [224, 224]))

    timms = create_transform(224, interpolation="bicubic", crop_pct=0.875)
    found = {
        OURS: lambda: steps.eval(image)[0],
        "torch interpolate, the same numbers": plain,
        "torchvision's transforms, rounded": lambda: vision(tensor),
        "timm's transforms (Pillow), rounded": lambda: timms(opened),
    }
    apart = float((found[OURS]() - plain()).abs().max())
    assert apart < 1e-4, apart
    return found


def many(make: Callable[[], torch.Tensor]) -> None:
    """Make the input several times."""
    for _ in range(TIMES):
        make()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    torch.set_num_threads(1)
    print(machine())
    for height, width in SIZES:
        print(f"\n{width} x {height}")
        made = {way: partial(many, make) for way, make in ways(height, width).items()}
        print(table(in_turn(made, rounds, warmup=2), OURS, "pictures", TIMES))


if __name__ == "__main__":
    main()
