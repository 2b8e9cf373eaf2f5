"""A result as plain data for result.json, from which a page can be laid out again without predicting anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import MappingProxyType
from typing import Any

from vitrail.core.errors import RunError
from vitrail.tasks.result import (
    Bars,
    Column,
    Curve,
    Gallery,
    Limits,
    Matrix,
    Number,
    Overlays,
    Picture,
    Reliability,
    Result,
    Shot,
    Table,
    TableSection,
)

KINDS: Mapping[str, type[Any]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            Bars, Column, Curve, Gallery, Limits, Matrix, Number, Overlays, Picture, Reliability, Shot, Table,
            TableSection,
        )
    }
)  # fmt: skip
"""The types that a result consists of; sections of other types have no layout and are left out."""

KIND, VALUES = "_", "values"
"""The keys of an object: the name of its type, and its values in the order of its fields."""

PAIRS = "pairs"
"""The kind of a mapping whose keys are not text."""


def result_to_dict(result: Result) -> dict[str, Any]:
    """Return the scores, the verdict and the sections as plain data; the details are in report.json."""
    known = [section for section in result.sections if type(section).__name__ in KINDS]
    return {
        "main": result.main,
        "verdict": result.verdict,
        "numbers": _plain(result.numbers),
        "sections": _plain(known),
    }


def result_from_dict(values: Mapping[str, Any]) -> Result:
    """Return the result that `result_to_dict` wrote.

    Raises:
        RunError: it was written by a newer vitrail, or is broken.
    """
    try:
        numbers, sections = _object(values["numbers"]), _object(values["sections"])
        return Result(str(values["main"]), numbers, str(values["verdict"]), (), sections)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"The result of this run cannot be read ({error}). Update vitrail, or open report.html of the run."
        ) from error


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        values = [_plain(getattr(value, field.name)) for field in fields(value)]
        return {KIND: type(value).__name__, VALUES: values}
    if hasattr(value, "_fields"):
        return {KIND: type(value).__name__, VALUES: [_plain(one) for one in value]}
    if isinstance(value, Mapping):
        if KIND not in value and all(isinstance(key, str) for key in value):
            return {key: _plain(one) for key, one in value.items()}
        return {KIND: PAIRS, VALUES: [[_plain(key), _plain(one)] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.item() if hasattr(value, "item") else value  # a number of NumPy


def _object(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_object(one) for one in value)
    if not isinstance(value, dict):
        return value
    if KIND not in value:
        return {key: _object(one) for key, one in value.items()}
    values = [_object(one) for one in value[VALUES]]
    if value[KIND] == PAIRS:
        return dict(values)
    return KINDS[value[KIND]](*values)
