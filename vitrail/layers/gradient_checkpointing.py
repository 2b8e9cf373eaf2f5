"""Gradient checkpointing: activations are computed again in the backward pass, which saves memory."""

from __future__ import annotations

from torch import nn

from vitrail.layers.encoder import Column


def set_checkpointing(network: nn.Module, on: bool) -> int:
    """Set gradient checkpointing in all parts that support it, ours and timm's; return the number of these parts."""
    parts = 0
    for module in network.modules():
        if isinstance(module, Column):
            module.checkpointing = on
            parts += 1
        elif callable(switch := getattr(module, "set_grad_checkpointing", None)):
            try:
                switch(on)
            except AssertionError:  # timm's networks raise it if they do not support checkpointing
                continue
            parts += 1
    return parts
