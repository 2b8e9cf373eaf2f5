"""The devices of this machine, and their support for bf16."""

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
    available = {
        "cpu": True,
        "cuda": (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise SettingError(f"The device {name!r} is not available on this machine. Use --device cpu.")
    return device


def bf16_unit(device: torch.device) -> str:
    """Return the name of the hardware unit that multiplies bf16 matrices on this device, or ""."""
    if device.type != "cpu":
        return device.type if fast_bf16(device) else ""
    has = torch.cpu.get_capabilities()
    return next((unit for unit in ("amx_bf16", "avx512_bf16") if has.get(unit)), "")


def fast_bf16(device: torch.device) -> bool:
    """Tell whether the device multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(bf16_unit(device))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return a context that computes matrix products in bf16 if this is the precision."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
