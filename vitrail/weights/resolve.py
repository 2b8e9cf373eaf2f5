"""Resolve the value of `--weights` to weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from vitrail.core import catalog
from vitrail.core.environment import expanded
from vitrail.core.errors import SettingError, WeightsError, nearest
from vitrail.models.factory import config_of
from vitrail.weights import checkpoints, download, local_registry
from vitrail.weights.checkpoints import Checkpoint
from vitrail.weights.infer_config import same_network
from vitrail.weights.pretrained import Pretrained, from_path


def find_weights(
    source: str, model: str | None = None, network: Mapping[str, Any] = MappingProxyType({})
) -> Pretrained:
    """Return weights by path, by the name of added weights, or by a published name.

    `network` states settings that do not follow from the tensors of a file (`from_path`).
    `auto` uses the best available weights for `model`: in the cache, among the added weights, on the hub.
    The WeightsError states the problem and the alternatives; weights are never replaced by random ones.
    """
    if source != "auto" and (path := expanded(source)).exists():
        return from_path(path, model, network)
    if entry := next((e for e in local_registry.known() if e.name == source), None):
        return local_registry.open_added(entry, model, network)
    if network:
        raise SettingError(f"The network of the weights {source} is known; remove --network.")
    if source == "auto":
        return _auto(model)
    row = checkpoints.find(source)
    if row is None:
        raise WeightsError(_unknown(source))
    return get(row, model)


def get(row: Checkpoint, model: str | None = None) -> Pretrained:
    """Return the weights of a published checkpoint, from the cache or the hub."""
    path = download.fetch(row.repo, row.files, row.beside)
    found = from_path(path.parent if row.beside else path, model or row.model)
    return replace(
        found,
        name=row.name,
        licence=row.licence,
        preprocessing=row.preprocessing or found.preprocessing,
    )


def _auto(model: str | None) -> Pretrained:
    if model is None:
        raise WeightsError("Automatic weights need the name of a network: --model vit_s16, say.")
    rows = checkpoints.defaults(model)
    for row in rows:
        if download.cached(row.repo, row.files):
            return get(row, model)
    config = config_of(model)
    for entry in local_registry.known():
        if entry.model and same_network(config_of(entry.model), config):
            return local_registry.open_added(entry)
    if not rows:
        raise WeightsError(
            f"No permissively licensed weights are published for {model}. Name a file or a checkpoint "
            "(--weights PATH), choose another network (`vitrail weights`), or start from nothing: --weights none."
        )
    return get(rows[0], model)


def _unknown(source: str) -> str:
    known = [*(e.name for e in local_registry.known()), *(row.name for row in checkpoints.listed())]
    near = nearest(source, known)
    hint = f" Did you mean {near!r}?" if near else ""
    if catalog.family_of(source):
        hint = f" {source!r} is a network: --model {source} --weights auto."
    return f"There are no weights called {source!r}, and no such file.{hint} `vitrail weights` lists what there is."
