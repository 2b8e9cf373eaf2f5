"""Build explainers from the settings that a user gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from vitrail.core import catalog
from vitrail.core.errors import SettingError
from vitrail.runs.network import Network


@dataclass(frozen=True)
class NoSettings:
    """Settings of a method without options."""


def build_explainer(method: str, given: Mapping[str, Any] | None = None) -> Any:
    """Return the explainer of this name, ours or "module:Class", with these settings.

    Raises:
        SettingError: the method has no such setting; the message names methods that have it.
    """
    kind = catalog.load("explainer", method)
    known = {field.name for field in fields(kind.Settings)}
    for name in given or {}:
        if name not in known:
            raise stranger(name, method)
    return kind(kind.Settings(**(given or {})))


def stranger(name: str, method: str) -> SettingError:
    """Return the error that a method has no such setting; it names the methods that have it."""
    others = [m for m in catalog.EXPLAINERS if _has(m, name)]
    return SettingError(
        f"--method {method} has no option --{name}; it belongs to --method {' or '.join(others)}."
    )


def _has(method: str, name: str) -> bool:
    settings = catalog.load("explainer", method).Settings
    return name in {field.name for field in fields(settings)}


def compatible_methods(network: Network) -> list[str]:
    """Return the names of our explainers that fit a network."""
    return [name for name in catalog.EXPLAINERS if catalog.load("explainer", name).fits(network)]
