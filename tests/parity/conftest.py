"""Shared parts of the parity tests: networks with random values, so that zeros or ones hide no error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def shaken() -> Callable[[nn.Module], nn.Module]:
    """Fill every parameter and float buffer with seeded noise and switch to evaluation."""

    @torch.no_grad()
    def shake(network: nn.Module) -> nn.Module:
        draw = torch.Generator().manual_seed(7)
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=draw)
            if "running_var" in name:
                tensor.copy_(1 + 0.3 * noise.abs())
            elif tensor.ndim > 1:
                tensor.copy_(noise / tensor[0].numel() ** 0.5)
            else:
                tensor.copy_(("weight" in name or "gamma" in name) + 0.3 * noise)
        return network.eval()

    return shake
