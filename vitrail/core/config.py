"""Typed settings: strict, immutable, with readable error messages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from vitrail.core.errors import SettingError, nearest

Model = TypeVar("Model", bound="Settings")


class Settings(BaseModel):
    """The base class of all settings that a user may give in a file or on the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def read(cls: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Build settings from a mapping; raise a SettingError that names the first mistake and the source `where`."""
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise SettingError(_explain(cls, error, where)) from None


def read_yaml(cls: type[Model], path: Path) -> Model:
    """Build settings from a YAML file."""
    return read(cls, read_mapping(path), str(path))


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingError(f"{path} is missing. Name a YAML file that exists.") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} cannot be read as YAML: {error}. Correct it and try again.") from None
    if not isinstance(values, dict):
        raise SettingError(f"{path} holds no settings. Write one `key: value` per line.")
    return values


def to_yaml(settings: Settings, head: str = "") -> str:
    """Return the settings as YAML text, with `head` as a comment above."""
    body: str = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return "".join(f"# {line}\n" for line in head.splitlines()) + body


class Fault(NamedTuple):
    """The first mistake in settings: the setting's dotted name, and what is wrong with it, as a predicate."""

    name: str
    words: str


def fault(cls: type[BaseModel], values: Mapping[str, Any]) -> Fault | None:
    """Return the first mistake in the values, or None if `cls` accepts them; missing values are not mistakes."""
    try:
        cls.model_validate(dict(values))
    except ValidationError as error:
        wrong = [one for one in error.errors() if one["type"] != "missing"]
        return _described(wrong[0]) if wrong else None
    return None


_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "greater_than": "must be more than {gt:g}",
        "greater_than_equal": "must be {ge:g} or more",
        "less_than": "must be less than {lt:g}",
        "less_than_equal": "must be {le:g} or less",
        "finite_number": "must be a finite number",
        "literal_error": "must be one of {expected}",
        "int_type": "must be a whole number",
        "int_parsing": "must be a whole number",
        "int_from_float": "must be a whole number",
        "float_type": "must be a number",
        "float_parsing": "must be a number",
        "bool_type": "must be true or false",
        "bool_parsing": "must be true or false",
        "string_type": "must be text",
        "missing": "is missing",
    }
)
"""pydantic's error types → plain words, with the limits that were exceeded."""


def _described(first: ErrorDetails) -> Fault:
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return Fault(name, _WORDS["missing"])
    words = _WORDS.get(first["type"], "is not valid: " + first["msg"].replace("{", "(").replace("}", ")"))
    given = first["input"]
    value = f"{given:g}" if isinstance(given, float) else repr(given)
    return Fault(name, f"{words.format(**first.get('ctx', {}))}, not {value}")


def _explain(cls: type[BaseModel], error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    if first["type"] == "extra_forbidden":
        name = ".".join(str(part) for part in first["loc"])
        near = nearest(str(first["loc"][-1]), cls.model_fields)
        return f"{where}: there is no setting {name!r}." + (f" Did you mean {near!r}?" if near else "")
    mistake = _described(first)
    return f"{where}: the setting {mistake.name!r} {mistake.words}."
