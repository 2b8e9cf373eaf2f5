"""What this machine can compute on, and how."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from vitrail.core.errors import SettingError


def device_for(name: str) -> torch.device:
    """Return the device of this name; auto takes CUDA, then Apple's MPS, then the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingError(
            f"There is no device called {name!r}. Choose --device auto, cpu, cuda or mps."
        ) from None
    there = {
        "cpu": True,
        "cuda": (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        raise SettingError(f"The device {name!r} is not to be had on this machine. Use --device cpu.")
    return device


def fast_bf16(device: torch.device) -> bool:
    """Tell whether the device multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return False


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Compute matrix products in bf16 where asked."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
