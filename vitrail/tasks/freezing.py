"""Train only a part of a network in some steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from vitrail.layers.encoder import ColumnEncoder


@contextmanager
def frozen_at_first(network: nn.Module, share: float, last: int | None, progress: float) -> Iterator[None]:
    """Freeze the encoder in the first `share` of a training, and later all of a column but its `last` blocks."""
    first = progress < share
    with frozen_encoder(network, first), frozen_below(network, None if first else last):
        yield


@contextmanager
def frozen_encoder(network: nn.Module, frozen: bool) -> Iterator[None]:
    """Freeze the encoder during a forward pass if `frozen`; a distributed wrapper has no `encoder`, so never there."""
    encoder = getattr(network, "encoder", None) if frozen else None
    with _frozen([] if encoder is None else list(encoder.parameters())):
        yield


@contextmanager
def frozen_below(network: nn.Module, last: int | None) -> Iterator[None]:
    """Freeze all of a column but its `last` blocks during a forward pass: nothing is computed backward below them.

    None freezes nothing; other encoders, and a distributed wrapper, are never frozen.
    """
    encoder = getattr(network, "encoder", None)
    if last is None or not isinstance(encoder, ColumnEncoder):
        yield
        return
    kept = [
        *encoder.norm.parameters(),
        *(one for block in list(encoder.blocks)[-last:] for one in block.parameters()),
    ]
    trained = {id(one) for one in kept}
    with _frozen([one for one in encoder.parameters() if id(one) not in trained]):
        yield


@contextmanager
def _frozen(parameters: list[nn.Parameter]) -> Iterator[None]:
    trainable = [one for one in parameters if one.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
