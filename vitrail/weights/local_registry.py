"""The registry of weights that the user added, with a name and a path each, stored in the cache folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from vitrail.core.environment import cache_dir, expanded
from vitrail.core.errors import WeightsError
from vitrail.core.files import write_json
from vitrail.weights.infer_config import preset_of
from vitrail.weights.pretrained import from_path


class Added(NamedTuple):
    """One entry: its name, its path, its network, and the settings stated by the user."""

    name: str
    path: Path
    model: str | None
    network: Mapping[str, Any] = {}
    assumed: tuple[str, ...] = ()  # assumptions made when it was added


def add(
    path: Path,
    *,
    name: str | None = None,
    model: str | None = None,
    network: Mapping[str, Any] = MappingProxyType({}),
) -> Added:
    """Add a file or folder of weights to the registry, after reading it; `model` and `network` as in `from_path`.

    The weights are not copied. Raise WeightsError if the name is used for another path.
    """
    path = expanded(path).resolve()
    found = from_path(path, model, network)
    entry = Added(name or found.name, path, model or preset_of(found.config), dict(network), found.assumed)
    entries = {added.name: added for added in known()}
    taken = entries.get(entry.name)
    if taken and taken.path != path:
        raise WeightsError(f"{entry.name!r} is the name of {taken.path}; give this one another (--name).")
    entries[entry.name] = entry
    rows = [
        {"name": e.name, "path": str(e.path), "model": e.model, "network": dict(e.network)}
        for e in entries.values()
    ]
    write_json(_register(), rows)
    return entry


def known() -> list[Added]:
    """Return the added weights in order, without entries whose file is missing."""
    try:
        rows = json.loads(_register().read_text("utf-8"))
    except OSError:  # nothing was added, or this user has no permission
        return []
    except ValueError as error:
        raise WeightsError(f"{_register()} is damaged; remove it and add your weights again.") from error
    entries = [Added(row["name"], Path(row["path"]), row["model"], row.get("network", {})) for row in rows]
    return [entry for entry in entries if os.path.exists(entry.path)]


def _register() -> Path:
    return cache_dir() / "weights" / "added.json"
