"""What both timm and transformers need to be told of a network of ours; `to_timm` and `to_transformers` say it.

The names of tensors are those of the rule tables (`vitrail.weights.tables`); the words are settings, and a few
changes of form that leave every answer as it was: a class token that takes in the vector of its place, a place of
zeros, a classifier with zeros for what it does not read.
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
"""What a head reads that has a classifier on the class token and one on the distillation token."""


class Foreign(NamedTuple):
    """A network in a library's words: its settings there, and its tensors under the library's names."""

    settings: Settings
    tensors: Tensors


class UnsupportedByLibraryError(RunError):
    """A library has no network that answers as one of ours does."""

    def __init__(self, library: str, family: str, why: str) -> None:
        what = "network of timm's" if family == TIMM else family
        super().__init__(f"{library} has no place for this {what}: {why}. Use --format onnx.")


def pool_of(network: Network, library: str) -> str:
    """Return what the classifier reads; refuses a head that no library has."""
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
    """Return the learned tokens that may have a place; registers have none."""
    return getattr(config, "prefix", ("cls",))


def scaled(config: Any) -> bool:
    """Tell whether the branches of the blocks have learned factors."""
    return getattr(config, "layer_scale", None) is not None


def hidden_of(config: Any) -> int:
    """Return the hidden width of the MLP."""
    return int(getattr(config, "hidden", None) or 4 * config.width)


def plain(config: Any, library: str) -> None:
    """Refuse the columns that both libraries lack."""
    if isinstance(config.patch, tuple):
        raise UnsupportedByLibraryError(library, config.family, "its patches do not overlap")
    if getattr(config, "stem", ()):
        why = "its hybrids normalise with another epsilon, so that they answer otherwise"
        raise UnsupportedByLibraryError(
            library, config.family, why if library == TIMM else "it has no such hybrid"
        )
    if config.position not in ("1d", "1d_patches"):
        raise UnsupportedByLibraryError(library, config.family, f"it has no {config.position!r} positions")


def with_rows(config: Any, state: Tensors) -> Tensors:
    """Return the state with a place for every learned token in front, of zeros where it had none."""
    if config.position == "1d":
        return state
    table = state["position.table"]
    return state | {
        "position.table": torch.cat([table.new_zeros(1, len(placed(config)), table.shape[2]), table], 1)
    }


def ratio_for(hidden: int, width: int) -> float:
    """Return a ratio that gives `hidden` again when it is multiplied by the width and cut to a whole number."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width
