"""The settings of an explainer, read from what a user gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from vitrail.core import catalog
from vitrail.core.errors import SettingError
from vitrail.runs.network import Network


@dataclass(frozen=True)
class NoSettings:
    """Nothing to set."""


def build_explainer(method: str, given: Mapping[str, Any] | None = None) -> Any:
    """Return the explainer of this name, ours or "module:Class", with these settings.

    Raises:
        SettingError: the method has no such setting; the message names those that have.
    """
    kind = catalog.load("explainer", method)
    known = {field.name for field in fields(kind.Settings)}
    for name in given or {}:
        if name not in known:
            raise stranger(name, method)
    return kind(kind.Settings(**(given or {})))


def stranger(name: str, method: str) -> SettingError:
    """Return the error that a setting is nothing to a method, and says whose it is."""
    others = [m for m in catalog.EXPLAINERS if _has(m, name)]
    return SettingError(
        f"--{name} is nothing to --method {method}; it is for --method {' or '.join(others)}."
    )


def _has(method: str, name: str) -> bool:
    settings = catalog.load("explainer", method).Settings
    return name in {field.name for field in fields(settings)}


def compatible_methods(network: Network) -> list[str]:
    """Return the names of our explainers that fit a network."""
    return [name for name in catalog.EXPLAINERS if catalog.load("explainer", name).fits(network)]
