"""Published checkpoints, as rows: name, network, where it lies, licence, preprocessing.

Nothing here is from memory: rows are read from the registry of the timm that is installed, which states the
address, the licence and the preprocessing of each; what it does not state is None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from vitrail.core import catalog
from vitrail.models.factory import our_name, timm_name
from vitrail.weights.conventions import Preprocessing, of_timm
from vitrail.weights.files import FOLDER_FILES

PERMISSIVE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0")
"""Licences that allow any use; only checkpoints under these are chosen unasked."""

PREFERRED = ("augreg_in21k", "lvd142m", "augreg2_in21k_ft_in1k", "augreg_in21k_ft_in1k", "orig_in21k")
"""timm's tags in the order in which `auto` tries them: broad pretraining first, to be fine-tuned here."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One published set of weights; `files` are tried in order in the hub's repository `repo`."""

    name: str
    model: str | None
    repo: str
    files: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
    beside: tuple[str, ...] = ()
    licence: str | None = None
    preprocessing: Preprocessing | None = None

    @property
    def permissive(self) -> bool:
        """Whether its licence is known and allows any use."""
        return self.licence in PERMISSIVE


def find(name: str) -> Checkpoint | None:
    """Return the row of a name: timm's, with or without a tag, or `organisation/repository` of the hub."""
    import timm

    name = timm_name(name)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return _on_the_hub(name)
    if not timm.is_model(name) or not timm.is_model_pretrained(name):
        return None
    cfg = timm.get_pretrained_cfg(name)
    repo = cfg.hf_hub_id if cfg else None
    if cfg is None or repo is None:
        return None
    model = cfg.architecture or name.partition(".")[0]
    files = (cfg.hf_hub_filename,) if cfg.hf_hub_filename else ("model.safetensors", "pytorch_model.bin")
    full = f"{model}.{cfg.tag}" if cfg.tag else model
    return Checkpoint(full, model, repo, files, (), cfg.license, of_timm(vars(cfg)))


def defaults(model: str) -> list[Checkpoint]:
    """Return the permissively licensed checkpoints of a network, ours or timm's, the preferred first."""
    found = [row for row in listed(model) if row.permissive]
    return sorted(found, key=lambda row: (_rank(row), row.name))


def listed(model: str = "*") -> list[Checkpoint]:
    """Return the checkpoints of our presets, or of one network (a shell pattern, our name or timm's)."""
    import timm

    ours, theirs = our_name(model)[0], timm_name(model)
    rows = []
    for name in timm.list_pretrained():
        preset, _ = our_name(name)
        known = catalog.family_of(preset) is not None
        if (known and fnmatchcase(preset, ours)) or theirs in (name, name.split(".")[0]):
            row = find(name)
            rows += [row] if row else []
    return rows


def _rank(row: Checkpoint) -> int:
    tag = row.name.partition(".")[2]
    return PREFERRED.index(tag) if tag in PREFERRED else len(PREFERRED)


def _on_the_hub(repo: str) -> Checkpoint:
    """Return the row of a repository that nobody described; its own files say the rest."""
    beside = ("config.json", "preprocessor_config.json", "processor_config.json")
    return Checkpoint(repo, None, repo, FOLDER_FILES, beside)
