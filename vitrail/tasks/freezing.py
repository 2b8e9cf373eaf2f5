"""Train only the head of a network in some steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen_encoder(network: nn.Module, frozen: bool) -> Iterator[None]:
    """Freeze the encoder during a forward pass if `frozen`; a distributed wrapper has no `encoder`, so never there."""
    encoder = getattr(network, "encoder", None) if frozen else None
    trainable = [one for one in encoder.parameters() if one.requires_grad] if encoder is not None else []
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
