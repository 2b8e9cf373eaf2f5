"""The register of weights that the user has added: a name and a path each, kept in the cache folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from vitrail.core.environment import cache_dir, expanded
from vitrail.core.errors import WeightsError
from vitrail.core.files import write_json
from vitrail.weights.infer_config import preset_of
from vitrail.weights.pretrained import Pretrained, from_path


class Added(NamedTuple):
    """One entry: the name to call it by, where it lies, the network that it holds, and what the user stated of it."""

    name: str
    path: Path
    model: str | None
    network: Mapping[str, Any] = {}
    assumed: tuple[str, ...] = ()  # what was taken for granted when it was added


def add(
    path: Path,
    *,
    name: str | None = None,
    model: str | None = None,
    network: Mapping[str, Any] = MappingProxyType({}),
) -> Added:
    """Put a file or folder of weights on the register, after reading it whole; `model` and `network` as in `from_path`.

    The weights stay where they are. A name that is taken by another path is refused (WeightsError).
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
    """Return what was added, in order; entries whose file is gone are left out."""
    try:
        rows = json.loads(_register().read_text("utf-8"))
    except OSError:  # nothing was added, or it is not for this user
        return []
    except ValueError as error:
        raise WeightsError(f"{_register()} is damaged; remove it and add your weights again.") from error
    entries = [Added(row["name"], Path(row["path"]), row["model"], row.get("network", {})) for row in rows]
    return [entry for entry in entries if os.path.exists(entry.path)]


def open_added(
    entry: Added, model: str | None = None, network: Mapping[str, Any] = MappingProxyType({})
) -> Pretrained:
    """Return the weights of an entry; `model` and `network` win over what was said when it was added."""
    found = from_path(entry.path, model or entry.model, {**entry.network, **network})
    return replace(found, name=entry.name)


def _register() -> Path:
    return cache_dir() / "weights" / "added.json"
