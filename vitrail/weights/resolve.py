"""Resolve the value of `--weights` to weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from vitrail.core import catalog
from vitrail.core.environment import expanded
from vitrail.core.errors import SettingError, WeightsError, nearest
from vitrail.models.factory import config_of
from vitrail.weights import checkpoints, download, local_registry
from vitrail.weights.checkpoints import Checkpoint
from vitrail.weights.detectors import detector
from vitrail.weights.infer_config import same_network
from vitrail.weights.local_registry import Added
from vitrail.weights.pretrained import Pretrained, from_path
from vitrail.weights.read_request import CLASSIFY

NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})


class Located(NamedTuple):
    """Weights on this machine, not opened yet: their path, and what is known of them beside their file.

    `name` is None for weights that are called as their file; `row` is theirs in the list of published checkpoints.
    """

    path: Path
    model: str | None = None
    network: Mapping[str, Any] = NO_SETTINGS
    name: str | None = None
    row: Checkpoint | None = None

    def open(self) -> Pretrained:
        """Read the weights."""
        found = from_path(self.path, self.model, self.network)
        if self.name is not None:
            found = replace(found, name=self.name)
        if self.row is None:
            return found
        licence = self.row.licence or found.licence
        return replace(found, licence=licence, preprocessing=self.row.preprocessing or found.preprocessing)


def find_weights(
    source: str, model: str | None = None, network: Mapping[str, Any] = NO_SETTINGS
) -> Pretrained:
    """Return weights by path, by the name of added weights, or by a published name.

    `network` states settings that do not follow from the tensors of a file (`from_path`).
    `auto` uses the best available weights for `model`: in the cache, among the added weights, on the hub.
    The WeightsError states the problem and the alternatives; weights are never replaced by random ones.
    """
    return locate(source, model, network).open()


def locate(source: str, model: str | None = None, network: Mapping[str, Any] = NO_SETTINGS) -> Located:
    """Return where the weights are that `find_weights` reads, after a download if they were not here."""
    if source != "auto" and (path := expanded(source)).exists():
        return Located(path, model, network)
    if entry := added(source):
        return _of_entry(entry, model, network)
    if network:
        raise SettingError(f"The network of the weights {source} is known; remove --network.")
    if source == "auto":
        return _auto(model)
    row = checkpoints.find(source)
    if row is None:
        raise WeightsError(_unknown(source))
    return _of_row(row, model)


def to_download(source: str, model: str | None = None) -> str | None:
    """Return the hub repository that `locate` would download from; None if the weights are here, or not known."""
    if added(source) or (source != "auto" and expanded(source).exists()):
        return None
    row = checkpoints.find(source) if source != "auto" else None
    rows = [row] if row is not None else checkpoints.defaults(model) if model else []
    if not rows or any(download.cached(one.repo, one.files) for one in rows):
        return None
    config = config_of(model) if model and source == "auto" else None
    if any(
        entry.model and same_network(config_of(entry.model), config)
        for entry in local_registry.known()
        if config
    ):
        return None
    return rows[0].repo


def locate_classifier(source: str) -> Located:
    """Return where weights with a head are; one of our networks stands for its best published ones."""
    known = catalog.family_of(source) is None or detector(source) is not None
    if known or expanded(source).exists() or added(source):
        return locate(source)
    rows = checkpoints.classifiers(source)
    if not rows:
        raise WeightsError(
            f"No weights with a classifier are published for {source}. Train it on your images: vitrail train IMAGES "
            f"--model {source}"
        )
    here = [row for row in rows if row.classes == rows[0].classes and download.cached(row.repo, row.files)]
    return _of_row((here or rows)[0])


def added(name: str) -> Added | None:
    """Return the weights that the user added under this name, or None."""
    return next((entry for entry in local_registry.known() if entry.name == name), None)


def _of_row(row: Checkpoint, model: str | None = None) -> Located:
    path = download.fetch(row.repo, row.files, row.beside)
    model = model or (
        row.model if row.task == CLASSIFY else None
    )  # the folder of a detector names its network
    return Located(path.parent if row.beside else path, model, name=row.name, row=row)


def _of_entry(entry: Added, model: str | None = None, network: Mapping[str, Any] = NO_SETTINGS) -> Located:
    return Located(entry.path, model or entry.model, {**entry.network, **network}, entry.name)


def _auto(model: str | None) -> Located:
    if model is None:
        raise WeightsError("Automatic weights need the name of a network: --model vit_s16, say.")
    rows = checkpoints.defaults(model)
    for row in rows:
        if download.cached(row.repo, row.files):
            return _of_row(row, model)
    config = config_of(model)
    for entry in local_registry.known():
        if entry.model and same_network(config_of(entry.model), config):
            return _of_entry(entry)
    if not rows:
        raise WeightsError(
            f"No permissively licensed weights are published for {model}. Name a file or a checkpoint "
            "(--weights PATH), choose another network (`vitrail weights`), or start from nothing: --weights none."
        )
    return _of_row(rows[0], model)


def _unknown(source: str) -> str:
    known = [*(e.name for e in local_registry.known()), *(row.name for row in checkpoints.listed())]
    near = nearest(source, known)
    hint = f" Did you mean {near!r}?" if near else ""
    if catalog.family_of(source):
        hint = f" {source!r} is a network: --model {source} --weights auto."
    return f"There are no weights called {source!r}, and no such file.{hint} `vitrail weights` lists what there is."
