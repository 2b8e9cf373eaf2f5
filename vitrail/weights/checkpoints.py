"""Published checkpoints as rows: name, network, address, licence, preprocessing.

The rows are read from the registry of the installed timm, which states the address, the licence and the preprocessing
of each checkpoint; values that it does not state are None. Networks with a head of another task than labels, which timm
has not, are listed in `vitrail.weights.detectors`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from vitrail.core import catalog
from vitrail.models.factory import config_of
from vitrail.models.names import our_name, timm_name
from vitrail.weights.conventions import Preprocessing, of_timm
from vitrail.weights.detectors import Detector, detector, detectors
from vitrail.weights.files import FOLDER_FILES, OPEN_CLIP
from vitrail.weights.image_start import image_network
from vitrail.weights.read_request import CLASSIFY

PERMISSIVE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0")
"""Licences that allow any use; `auto` chooses only checkpoints with these."""

PREFERRED = (
    "augreg_in21k",
    "lvd142m",
    "augreg2_in21k_ft_in1k",
    "augreg_in21k_ft_in1k",
    "orig_in21k",
    "openai",
)
"""timm's tags in the order in which `auto` tries them: broad pretraining first, to be fine-tuned here."""

BESIDE = ("config.json", "preprocessor_config.json", "processor_config.json", OPEN_CLIP)
"""Files of a repository that describe its weights."""

FILE_SUFFIXES = (".safetensors", ".npz", ".h5", ".pth", ".pt", ".bin")
"""Suffixes of a path that is not here, which names no repository."""

IMAGENET = 1000
"""Classes of ImageNet-1k."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A published set of weights; `files` are tried in order in the hub repository `repo`.

    `classes` is the number of outputs of its classifier: 0 without one, None if it is not stated. The head is that of
    `task`.
    """

    name: str
    model: str | None
    repo: str
    files: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
    beside: tuple[str, ...] = ()
    licence: str | None = None
    preprocessing: Preprocessing | None = None
    classes: int | None = None
    task: str = CLASSIFY

    @property
    def permissive(self) -> bool:
        """Whether the licence is known and allows any use."""
        return self.licence in PERMISSIVE


def find(name: str) -> Checkpoint | None:
    """Return the row of a name: ours of a detector, timm's with or without a tag, or `organisation/repository`."""
    import timm

    if row := detector(name):
        return _of_detector(row)
    name = timm_name(name)
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) and not name.endswith(FILE_SUFFIXES):
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
    known = full if our_name(full) != our_name(model) else model  # a tag that tells networks apart
    return Checkpoint(full, known, repo, files, (), cfg.license, of_timm(vars(cfg)), cfg.num_classes)


def defaults(model: str) -> list[Checkpoint]:
    """Return the checkpoints that start a network (ours or timm's), with a permissive licence, the preferred first.

    They are its own, or those of the image network that a network for clips begins as.
    """
    return permissive(image_network(model))


def permissive(model: str) -> list[Checkpoint]:
    """Return a network's own checkpoints with a permissive licence, the preferred first."""
    found = [row for row in listed(model) if row.permissive]
    return sorted(found, key=lambda row: (_rank(row), row.name))


def classifiers(model: str) -> list[Checkpoint]:
    """Return the permissively licensed checkpoints of a network with a classifier, the best to answer with first.

    That is one for the thousand classes of ImageNet, at the image size of the network itself, pretrained broadly.
    """
    size = config_of(model).size

    def rank(row: Checkpoint) -> tuple[bool, bool, int, bool]:
        own = row.preprocessing is not None and row.preprocessing.image == size
        return row.classes != IMAGENET, not own, _rank(row), "_ft_" not in row.name

    return sorted((row for row in permissive(model) if row.classes), key=rank)


def listed(model: str = "*") -> list[Checkpoint]:
    """Return the checkpoints of our presets, or of one network (a shell pattern, our name or timm's)."""
    import timm

    ours, theirs = our_name(model)[0], timm_name(model)
    rows = [_of_detector(row) for row in detectors(ours) if catalog.family_of(row.model)]
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
    """Return the row of a repository that is not in the registry; its files contain the rest."""
    return Checkpoint(repo, None, repo, FOLDER_FILES, BESIDE)


def _of_detector(row: Detector) -> Checkpoint:
    return Checkpoint(row.name, row.model, row.repo, FOLDER_FILES, BESIDE, row.licence, task=row.task)
