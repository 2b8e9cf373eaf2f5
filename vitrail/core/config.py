"""Typed settings: strict, frozen, and plain about what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from vitrail.core.errors import SettingError, nearest

Model = TypeVar("Model", bound="Settings")


class Settings(BaseModel):
    """The base of everything a user may set in a file or on the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def read(cls: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Build settings from a mapping; raise a SettingError that names the first mistake and `where` it stands."""
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise SettingError(_explain(cls, error, where)) from None


def read_yaml(cls: type[Model], path: Path) -> Model:
    """Build settings from a YAML file."""
    return read(cls, read_mapping(path), str(path.name))


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingError(f"{path} is missing. Name a YAML file that exists.") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} cannot be read as YAML: {error}. Mend it and try again.") from None
    if not isinstance(values, dict):
        raise SettingError(f"{path} holds no settings. Write one `key: value` a line.")
    return values


def to_yaml(settings: Settings, head: str = "") -> str:
    """Return the settings as YAML text, under a comment."""
    body: str = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return "".join(f"# {line}\n" for line in head.splitlines()) + body


def _explain(cls: type[BaseModel], error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = nearest(str(first["loc"][-1]), cls.model_fields)
        return f"{where}: there is no setting {name!r}." + (f" Did you mean {near!r}?" if near else "")
    return f"{where}: the setting {name!r} is not right: {first['msg']} (it was {first['input']!r})."
