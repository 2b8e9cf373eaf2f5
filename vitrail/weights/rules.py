"""The rules of the weight tables: our tensors from those of a source and back, strict in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from vitrail.core.errors import WeightsError

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Op:
    """A pair of functions: `load` converts their tensors to ours, `save` converts back, bit-equal."""

    load: Callable[[tuple[Tensor, ...]], Tensor]
    save: Callable[[Tensor], tuple[Tensor, ...]]


SAME = Op(lambda theirs: theirs[0], lambda ours: (ours,))
TRANSPOSE = Op(lambda theirs: theirs[0].T, lambda ours: (ours.T,))  # (in, out) and (out, in)


def as_matrix(convolution: bool) -> Op:
    """Return the op for a classifier that may be stored as a 1 × 1 convolution, (k, d, 1, 1)."""
    return Op(
        lambda theirs: theirs[0].flatten(1),
        lambda ours: (ours[..., None, None] if convolution else ours,),
    )


def side_by_side(parts: int) -> Op:
    """Return the op for learned tokens (1, 1, d), which are one tensor (1, parts, d) here."""
    return Op(lambda theirs: torch.cat(theirs, 1), lambda ours: ours.chunk(parts, 1))


def stacked(parts: int) -> Op:
    """Return the op for separate projections, whose rows are stacked in one matrix here."""
    return Op(lambda theirs: torch.cat(theirs), lambda ours: ours.chunk(parts))


@dataclass(frozen=True, slots=True)
class Rule:
    """Our name of a tensor and their names (several if the op joins them).

    `{i}` and similar fields match one part of a name, `{rest}` all the rest; `{i+1}` and `{i-1}` are the next and the
    previous number.
    """

    ours: str
    theirs: str | tuple[str, ...]
    op: Op = SAME

    @property
    def sources(self) -> tuple[str, ...]:
        """Their names, as patterns."""
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


@dataclass(frozen=True, slots=True)
class Table:
    """A source: rules for the encoder and for the head, and shell patterns of ignored tensors."""

    name: str
    rules: tuple[Rule, ...]
    head: tuple[Rule, ...] = ()
    ignored: tuple[str, ...] = ()


class Loaded(NamedTuple):
    """Tensors with our names: those of the encoder, and those of the head in the file."""

    encoder: dict[str, Tensor]
    head: dict[str, Tensor]


def load(
    table: Table, source: Mapping[str, Tensor], shapes: Shapes, hint: Callable[[], str] = lambda: ""
) -> Loaded:
    """Return the tensors of an encoder with these `shapes` from those of a source.

    Raise WeightsError with the tensors that are missing, have another shape, or are neither read nor ignored; the
    message ends with `hint()`, which is called only then.
    """
    encoder, wrong, read = {}, [], set()
    for name, shape in shapes.items():
        rule, parts = _match(table.rules, name)
        theirs = [pattern.format(**parts) for pattern in rule.sources]
        missing = [key for key in theirs if key not in source]
        if missing:
            wrong.append(f"{', '.join(missing)} missing")
            continue
        read.update(theirs)
        encoder[name] = rule.op.load(tuple(source[key] for key in theirs)).contiguous()
        if tuple(encoder[name].shape) != tuple(shape):
            wrong.append(f"{theirs[0]} gives {tuple(encoder[name].shape)} where {tuple(shape)} is wanted")
    head, used = _head(table, source)
    left = [key for key in source if key not in read | used and not _ignored(table, key)]
    wrong += [f"{key} has no place" for key in left]
    if wrong:
        raise WeightsError(
            f"These {table.name} weights do not fit the network: {_some(wrong)}. {hint()}".strip()
        )
    return Loaded(encoder, head)


def peek(table: Table, source: Mapping[str, Tensor], name: str) -> Tensor | None:
    """Return one of our tensors from those of a source, or None if the source or its table does not have it."""
    if not any(_pattern(rule.ours).fullmatch(name) for rule in table.rules):
        return None
    rule, parts = _match(table.rules, name)
    theirs = [pattern.format(**parts) for pattern in rule.sources]
    return (
        rule.op.load(tuple(source[key] for key in theirs)) if all(key in source for key in theirs) else None
    )


def save(
    table: Table, encoder: Mapping[str, Tensor], head: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return the source's tensors from ours, bit-equal to those that `load` read."""
    out: dict[str, Tensor] = {}
    for rules, tensors in ((table.rules, encoder), (table.head, head or {})):
        for name, tensor in tensors.items():
            rule, parts = _match(rules, name)
            for key, value in zip(rule.sources, rule.op.save(tensor), strict=True):
                out[key.format(**parts)] = value.contiguous()
    return out


def rename_keys(source: Mapping[str, Tensor], spellings: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """Return the tensors with the names of a table: each (pattern, replacement) is applied to every name."""
    out = {}
    for name, tensor in source.items():
        for pattern, replacement in spellings:
            name = re.sub(pattern, replacement, name)
        out[name] = tensor
    return out


def _head(table: Table, source: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    head: dict[str, Tensor] = {}
    used: set[str] = set()
    for rule in table.head:
        if all(key in source for key in rule.sources):
            head[rule.ours] = rule.op.load(tuple(source[key] for key in rule.sources)).contiguous()
            used.update(rule.sources)
    return head, used


def _match(rules: tuple[Rule, ...], name: str) -> tuple[Rule, dict[str, str]]:
    found = [(rule, match.groupdict()) for rule in rules if (match := _pattern(rule.ours).fullmatch(name))]
    if len(found) != 1:
        raise WeightsError(f"The table has {len(found)} rules for our tensor {name!r}; it must have one.")
    rule, parts = found[0]
    # "{i+1}" is our number plus one, because some sources count from 1.
    numbers = {key: int(value) for key, value in parts.items() if value.isdigit()}
    beside = {f"{key}{step:+d}": str(value + step) for key, value in numbers.items() for step in (1, -1)}
    return rule, parts | beside


@cache
def _pattern(name: str) -> re.Pattern[str]:
    pattern = re.escape(name).replace(r"\{rest\}", "(?P<rest>.+)")
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^.]+)", pattern))


def _ignored(table: Table, key: str) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in table.ignored)


def _some(items: list[str], most: int = 4) -> str:
    rest = f", and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + rest
