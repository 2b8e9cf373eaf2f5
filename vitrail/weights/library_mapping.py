"""Shared parts of the export of our networks to timm and transformers (`to_timm`, `to_transformers`).

The names of tensors come from the rule tables (`vitrail.weights.tables`). The rest is settings, and a few changes of
tensors that do not change any output: a class token that includes its position embedding, a position of zeros, a
classifier with zeros for features that it does not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from vitrail.core.errors import RunError
from vitrail.layers.pooling import Pool

if TYPE_CHECKING:
    from vitrail.runs.network import Network

Tensors = dict[str, Tensor]
Settings = dict[str, Any]

TIMM, HUB = "timm", "transformers"

BOTH = "both"
"""The pool of a head with one classifier on the class token and one on the distillation token."""


class Foreign(NamedTuple):
    """A network for another library: its settings there, and its tensors with the names of the library."""

    settings: Settings
    tensors: Tensors


class UnsupportedByLibraryError(RunError):
    """A library has no network with the same outputs as ours."""

    def __init__(self, library: str, family: str, why: str) -> None:
        what = "network of timm's" if family == TIMM else family
        super().__init__(f"{library} has no place for this {what}: {why}. Use --format onnx.")


def pool_of(network: Network, library: str) -> str:
    """Return the pool of the classifier; raise UnsupportedByLibraryError for a head that no library has."""
    if network.head.apart:
        return BOTH
    pool, names = getattr(network.head, "pool", None), network.head.state_dict()
    if not isinstance(pool, Pool) or not all(
        name.startswith(("linear.", "pool.attention.")) for name in names
    ):
        raise UnsupportedByLibraryError(
            library, network.encoder.config.family, "its head is not one linear layer on a pool"
        )
    return pool.kind


def head_of(network: Network, temperature: float) -> Tensors:
    """Return the head's tensors, the classifiers divided by the temperature."""
    answers = ("linear.", "dist.")
    tensors = network.head.state_dict()
    return {k: t / temperature if k.startswith(answers) else t for k, t in tensors.items()}


def placed(config: Any) -> tuple[str, ...]:
    """Return the learned tokens that can have a position; registers have none."""
    return getattr(config, "prefix", ("cls",))


def scaled(config: Any) -> bool:
    """Return whether the blocks have layer scale."""
    return getattr(config, "layer_scale", None) is not None


def hidden_of(config: Any) -> int:
    """Return the hidden width of the MLP."""
    return int(getattr(config, "hidden", None) or 4 * config.width)


def plain(config: Any, library: str) -> None:
    """Raise UnsupportedByLibraryError for networks that neither library has."""
    if isinstance(config.patch, tuple):
        raise UnsupportedByLibraryError(library, config.family, "its patches do not overlap")
    if getattr(config, "stem", ()):
        why = "its hybrids normalise with another epsilon, so that they answer otherwise"
        raise UnsupportedByLibraryError(
            library, config.family, why if library == TIMM else "it has no such hybrid"
        )
    if config.position not in ("1d", "1d_patches", "sine"):
        raise UnsupportedByLibraryError(library, config.family, f"it has no {config.position!r} positions")


def with_rows(config: Any, state: Tensors) -> Tensors:
    """Return the state with a position for every learned token in front, of zeros if it had none."""
    if config.position != "1d_patches":
        return state
    table = state["position.table"]
    return state | {
        "position.table": torch.cat([table.new_zeros(1, len(placed(config)), table.shape[2]), table], 1)
    }


def ratio_for(hidden: int, width: int) -> float:
    """Return a ratio for which int(width · ratio) equals `hidden`."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width
