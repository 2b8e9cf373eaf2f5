"""Extract weights from training checkpoints: nested mappings, parts of larger networks, prefixes of names.

No format of a specific program is assumed. A set of weights is a mapping from names to tensors at any depth; of several
sets, an average comes first, and the chosen one is reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from vitrail.core.errors import WeightsError

PREFERRED = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema_model",
    "ema",
    "teacher",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "student",
    "module",
    "backbone",
    "encoder",
    "weights",
    "params",
)
"""Keys under which training programs store weights, in order of preference: averages first."""

NEVER = (
    "optimizer",
    "optimizers",
    "optimizer_state_dict",
    "optimizer_states",
    "lr_scheduler",
    "lr_schedulers",
    "scheduler",
    "scheduler_state_dict",
    "scaler",
    "amp_scaler",
    "loops",
    "callbacks",
    "rng",
    "rng_state",
    "hyper_parameters",
    "hparams",
    "args",
    "cfg",
    "config",
)
"""Keys under which they store other data, which can include tensors."""

AROUND = ("module.", "_orig_mod.", "model.", "net.", "network.", "wrapped_model.", "timm_model.")
"""Prefixes that wrappers add to every name: data parallel, torch.compile, Lightning and other modules."""

PARTS = (
    "backbone.",
    "encoder.",
    "base_encoder.",
    "encoder_q.",
    "teacher.",
    "student.",
    "vit.",
    "visual.trunk.",
    "trunk.",
)
"""Names of the image encoder in larger networks."""

BOOKKEEPING = ("n_averaged", "ema_decay", "num_updates", "decay", "initted", "step")
"""Counters that averages store beside the weights (SWA, EMA)."""

DEEPEST = 5
"""Largest depth of nested mappings around the weights."""


class Unwrapped(NamedTuple):
    """Tensors by name, their position in the file, and the other sets of weights in the file."""

    tensors: dict[str, Tensor]
    where: str
    others: tuple[str, ...]


def unwrap(content: Any, file: str) -> Unwrapped:
    """Return the set of weights in the content of a file.

    Raise WeightsError if there is none, or if none of several is preferred.
    """
    found = dict(_sets(content))
    if not found:
        held = f" (it holds {_named(content)})" if isinstance(content, Mapping) and content else ""
        raise WeightsError(f"{file} holds no weights{held}; name the checkpoint of a network.")
    best = min(_rank(where) for where in found)
    first = [where for where in found if _rank(where) == best]
    if len(first) > 1:
        raise WeightsError(
            f"{file} holds several sets of weights ({', '.join(first)}), and none of a name that is known. Save the "
            f"one that you mean by itself: torch.save(torch.load({file!r})[{first[0].split('.')[0]!r}], 'one.pth')"
        )
    tensors = found.pop(first[0])
    return Unwrapped(stripped(tensors), first[0], tuple(found))


def stripped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the prefixes and counters of wrappers."""
    out = dict(tensors)
    while True:
        weights = {name: t for name, t in out.items() if name not in BOOKKEEPING or t.ndim}
        around = next((a for a in AROUND if weights and all(name.startswith(a) for name in weights)), None)
        if around is None:
            return weights if len(weights) < len(out) and weights else out
        out = {name.removeprefix(around): tensor for name, tensor in weights.items()}


def parts(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the parts of a larger network that can be a network themselves, each with its prefix."""
    for front in (*AROUND, *PARTS):
        inner = {name.removeprefix(front): t for name, t in tensors.items() if name.startswith(front)}
        if inner:
            yield front, stripped(inner)
            yield from ((front + more, part) for more, part in parts(inner))


def _sets(content: Any, where: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every mapping from names to tensors that contains no other one."""
    if not isinstance(content, Mapping) or depth > DEEPEST:
        return
    nested = [
        found
        for key, value in content.items()
        if isinstance(key, str) and key.lower() not in NEVER
        for found in _sets(value, f"{where}.{key}" if where else key, depth + 1)
    ]
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not nested and any(tensor.ndim for tensor in tensors.values()):
        nested = [(where, tensors)]
    yield from nested


def _rank(where: str) -> tuple[int, ...]:
    """Return the rank of a set of weights by the keys on its path; unknown keys come last."""
    names = where.split(".") if where else []
    return tuple(PREFERRED.index(name) if name in PREFERRED else len(PREFERRED) for name in names)


def _named(content: Mapping[Any, Any], most: int = 5) -> str:
    names = [str(key) for key in content]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
