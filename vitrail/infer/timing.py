"""Time several functions in turn in one process, so that changes of the machine's speed affect all equally."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch


def machine() -> str:
    """Describe this machine (GPU, CPU, threads, versions), without its host name."""
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    has = torch.cpu.get_capabilities()
    kinds = [name for name in ("amx_bf16", "avx512_bf16", "avx512_f", "avx2") if has.get(name)]
    return (
        f"{gpu}{model}, {torch.get_num_threads()} threads, {'/'.join(kinds[:2])}, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


class Peak:
    """Peak memory, in bytes, in addition to the memory at the start: of the GPU, or of this process."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.before: int | None = None
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)
            return
        try:
            # Linux: reset the peak (VmHWM).
            Path("/proc/self/clear_refs").write_text("5")
            self.before = _status("VmRSS")
        except OSError:
            pass  # not Linux: unknown

    def read(self) -> int | None:
        """Return the bytes, or None if the system does not report them."""
        if self.before is None:
            return None
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self.before
        return max(0, _status("VmHWM") - self.before)


def _status(what: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


SETTLE = 0.05
"""Pause between two functions, in seconds: worker threads of the previous one, still spinning, would slow down the
next."""


def in_turn(
    things: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Run each function once per round and return its seconds, round by round."""
    times: dict[str, list[float]] = {name: [] for name in things}
    for number in range(warmup + rounds):
        for name, run in things.items():
            time.sleep(SETTLE)
            began = time.perf_counter()
            run()
            if number >= warmup:
                times[name].append(time.perf_counter() - began)
    return times


@dataclass(frozen=True)
class Ratio:
    """Speedup of the first over the second: median of the paired ratios with its 95 % interval."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(first: list[float], second: list[float], draws: int = 5000) -> Ratio:
    """Bootstrap the median of second/first over rounds."""
    each = np.array(second) / np.array(first)
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(each, (draws, len(each))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return Ratio(float(np.median(each)), float(low), float(high))


def matmul_peak(device: torch.device, dtype: torch.dtype, side: int = 2048, rounds: int = 5) -> float:
    """Return the highest measured multiply-adds per second of square matrix products on this machine.

    A GPU gets matrices four times as wide, so that launch and synchronization times are negligible.
    """
    side *= 4 if device.type == "cuda" else 1
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def product() -> None:
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    seconds = in_turn({"product": product}, rounds)["product"]
    return side**3 / min(seconds)
