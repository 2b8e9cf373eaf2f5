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


class LacksError(WeightsError):
    """A file lacks the tensor that we call `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The file lacks what we call {name}; it belongs to another kind of network.")
        self.name = name


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


class Part(NamedTuple):
    """One of several equal parts of a tensor, in the order of its rows."""

    place: int
    of: int


@dataclass(frozen=True, slots=True)
class Rule:
    """Our name of a tensor and their names (several if the op joins them).

    `{i}` and similar fields match one part of a name, `{rest}` all the rest; `{i+1}` and `{i-1}` are the next and the
    previous number. With `part` ours is only this part of their one tensor; the rules of the other parts name it, too.
    """

    ours: str
    theirs: str | tuple[str, ...]
    op: Op = SAME
    part: Part | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """Their names, as patterns."""
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs

    def read(self, theirs: tuple[Tensor, ...]) -> Tensor:
        """Return our tensor from theirs."""
        if self.part is not None:
            theirs = tuple(tensor.chunk(self.part.of)[self.part.place] for tensor in theirs)
        return self.op.load(theirs)


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


class _Found(NamedTuple):
    """Tensors with our names, the names of theirs that were read, and what is missing or has another shape."""

    tensors: dict[str, Tensor]
    read: set[str]
    missing: list[str]
    wrong: list[str]


def load(
    table: Table,
    source: Mapping[str, Tensor],
    shapes: Shapes,
    hint: Callable[[], str] = lambda: "",
    head: Shapes | None = None,
) -> Loaded:
    """Return the tensors of an encoder with these `shapes` from those of a source, and those of its head.

    With the shapes of the `head` it is loaded as strictly, and its rules may be patterns; otherwise each of its rules
    without fields is read if the source has its tensors.

    Raise WeightsError with the tensors that are missing, have another shape, or are neither read nor ignored; the
    message ends with `hint()`, which is called only then.
    """
    encoder = _read(table.rules, source, shapes)
    answer = _present(table.head, source) if head is None else _read(table.head, source, head)
    read = encoder.read | answer.read
    left = [key for key in source if key not in read and not _ignored(table, key)]
    wrong = [*encoder.missing, *answer.missing, *encoder.wrong, *answer.wrong]
    wrong += [f"{key} has no place" for key in left]
    if wrong:
        raise WeightsError(
            f"These {table.name} weights do not fit the network: {_some(wrong)}. {hint()}".strip()
        )
    return Loaded(encoder.tensors, answer.tensors)


def _read(rules: tuple[Rule, ...], source: Mapping[str, Tensor], shapes: Shapes) -> _Found:
    """Read all tensors of these shapes."""
    found = _Found({}, set(), [], [])
    for name, shape in shapes.items():
        rule, parts = _match(rules, name)
        theirs = [pattern.format(**parts) for pattern in rule.sources]
        missing = [key for key in theirs if key not in source]
        if missing:
            found.missing.append(f"{', '.join(missing)} missing")
            continue
        found.read.update(theirs)
        ours = rule.read(tuple(source[key] for key in theirs)).contiguous()
        found.tensors[name] = ours
        if tuple(ours.shape) != tuple(shape):
            found.wrong.append(f"{theirs[0]} gives {tuple(ours.shape)} where {tuple(shape)} is wanted")
    return found


def _present(rules: tuple[Rule, ...], source: Mapping[str, Tensor]) -> _Found:
    """Read the rules whose tensors the source has; none of them is a pattern."""
    found = _Found({}, set(), [], [])
    for rule in rules:
        if all(key in source for key in rule.sources):
            found.tensors[rule.ours] = rule.read(tuple(source[key] for key in rule.sources)).contiguous()
            found.read.update(rule.sources)
    return found


def peek(table: Table, source: Mapping[str, Tensor], name: str) -> Tensor | None:
    """Return one of our tensors from those of a source, or None if the source or its table does not have it."""
    if not any(_pattern(rule.ours).fullmatch(name) for rule in table.rules):
        return None
    rule, parts = _match(table.rules, name)
    theirs = [pattern.format(**parts) for pattern in rule.sources]
    return rule.read(tuple(source[key] for key in theirs)) if all(key in source for key in theirs) else None


def sources_of(table: Table, name: str) -> list[str]:
    """Return the names that a source has for one of our tensors, of its encoder or its head."""
    rule, parts = _match((*table.rules, *table.head), name)
    return [pattern.format(**parts) for pattern in rule.sources]


def save(
    table: Table, encoder: Mapping[str, Tensor], head: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return the source's tensors from ours, bit-equal to those that `load` read."""
    out: dict[str, Tensor] = {}
    parts: dict[str, list[Tensor | None]] = {}
    for rules, tensors in ((table.rules, encoder), (table.head, head or {})):
        for name, tensor in tensors.items():
            rule, fields = _match(rules, name)
            for pattern, value in zip(rule.sources, rule.op.save(tensor), strict=True):
                key = pattern.format(**fields)
                if rule.part is None:
                    out[key] = value.contiguous()
                else:
                    parts.setdefault(key, [None] * rule.part.of)[rule.part.place] = value
    return out | {key: _joined(key, pieces) for key, pieces in parts.items()}


def _joined(key: str, pieces: list[Tensor | None]) -> Tensor:
    """Return one of their tensors from ours; raise WeightsError if a part of it is missing."""
    present = [piece for piece in pieces if piece is not None]
    if len(present) < len(pieces):
        raise WeightsError(f"{len(present)} of the {len(pieces)} parts of {key} are here; save them all.")
    return torch.cat(present)


def rename_keys(source: Mapping[str, Tensor], spellings: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """Return the tensors with the names of a table: each (pattern, replacement) is applied to every name."""
    out = {}
    for name, tensor in source.items():
        for pattern, replacement in spellings:
            name = re.sub(pattern, replacement, name)
        out[name] = tensor
    return out


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
