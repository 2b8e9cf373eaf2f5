"""How time and memory grow with the pixels: one forward of ViT-S/16, Swin-T and VVT-tiny at 224 to 1344 px.

`python -m bench.scaling [--minutes 5] [--figure scaling.png]`. One image, float32. Times: the networks take turns at
each size, medians. Memory (Linux): a process a network and size, its highest resident size in the forward above that
before it. The exponent is the slope of the logarithms over the pixels, 1 for linear growth. Weights are random.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from bench.pairs import in_turn, machine
from vitrail.models.factory import count_macs, create_encoder

NAMES = ("vit_s16", "swin_t", "vvt_t")
SIDES = (224, 448, 896, 1344)


def forward(name: str, side: int):
    torch.manual_seed(0)
    encoder = create_encoder(name, image=side).eval()
    images = torch.randn(1, 3, side, side)

    def run() -> None:
        with torch.inference_mode():
            encoder(images)

    return run


def status(key: str) -> float:
    """Return a size from Linux's account of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def alone(name: str, side: int) -> None:
    """Print how many MB one forward holds at its highest, above what the process held before."""
    run = forward(name, side)
    with torch.inference_mode():  # what torch sets up once is not the forward's
        torch.nn.Conv2d(3, 8, 3)(torch.randn(1, 3, 64, 64)).flatten(2).mT @ torch.randn(8, 8)
    Path("/proc/self/clear_refs").write_text("5")  # the highest size so far is the present one
    before = status("VmRSS")
    run()
    print(f"{status('VmHWM') - before:.0f}")


def memory(name: str, side: int) -> float:
    command = [sys.executable, "-m", "bench.scaling", "--alone", name, str(side)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def exponent(values: list[float]) -> float:
    """Return the slope of log(values) over log(pixels)."""
    return float(np.polyfit(np.log(np.square(SIDES)), np.log(values), 1)[0])


def figure(seconds: dict[str, list[float]], megabytes: dict[str, list[float]], path: Path) -> None:
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 3.8), layout="constrained")
    pixels = np.square(SIDES) / 1e6
    for axes, values, what in zip(
        drawn.subplots(1, 2), (seconds, megabytes), ("seconds an image", "MB of one forward"), strict=True
    ):
        for (name, row), mark in zip(values.items(), "os^", strict=True):
            axes.loglog(pixels, row, marker=mark, label=f"{name}, pixels^{exponent(row):.2f}")
        axes.set(xlabel="megapixels", ylabel=what)
        axes.set_xticks(pixels, [f"{p:.2g}" for p in pixels])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    drawn.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--figure", type=Path, default=Path("scaling.png"))
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        alone(options.alone[0], int(options.alone[1]))
        return
    print(machine())
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    megabytes: dict[str, list[float]] = {name: [] for name in NAMES}
    print("| network | px | GMACs | seconds | MB of one forward |\n|---|---|---|---|---|")
    for side in SIDES:
        things = {name: forward(name, side) for name in NAMES}
        began = time.perf_counter()
        in_turn(things, 1, warmup=0)
        once = time.perf_counter() - began
        share = 60 * options.minutes * 0.8 * side**2 / sum(s**2 for s in SIDES)
        times = in_turn(things, max(3, min(50, int(share / once))), warmup=1)
        for name in NAMES:
            seconds[name].append(median(times[name]))
            megabytes[name].append(memory(name, side))
            macs = count_macs(create_encoder(name, image=side), side) / 1e9
            row = (name, side, f"{macs:.2f}", f"{seconds[name][-1]:.3f}", f"{megabytes[name][-1]:.0f}")
            print("| " + " | ".join(map(str, row)) + " |", flush=True)
    for name in NAMES:
        print(
            f"{name}: time grows with pixels^{exponent(seconds[name]):.2f}, memory with "
            f"pixels^{exponent(megabytes[name]):.2f}"
        )
    figure(seconds, megabytes, options.figure)
    print(f"figure: {options.figure}")


if __name__ == "__main__":
    main()
