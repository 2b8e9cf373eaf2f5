"""What the word for a model stands for: a path of ours, or published weights. Typing errors need no torch."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from vitrail.core.catalog import family_of, presets
from vitrail.core.environment import expanded, runs_dir
from vitrail.core.errors import nearest

FILES = (".safetensors", ".npz", ".h5", ".bin", ".pth", ".pt", ".tar", ".pyth", ".ckpt")
"""Suffixes of files that may hold weights of others."""

EXPORTED = "vitrail_export"
"""The entry in the metadata of weights that vitrail wrote for another library."""

NO_NAMES = (*FILES, ".onnx", ".xml", ".pt2", ".json", ".zip")
"""Suffixes of files, which end no name of weights."""

PLAIN_NAMES = ("ecaresnetlight", "nasnetalarge", "xception")
"""The names of networks of timm without a digit and an underscore."""


def is_ours(path: Path) -> bool:
    """Return whether a path is a run or model file of vitrail, with classes and proof."""
    return (path / "recipe.yaml").is_file() or has_our_header(path)


def has_our_header(path: Path) -> bool:
    """Return whether a path is a safetensors file with the header of a model file."""
    return "vitrail" in (_metadata(path) or {})


def is_exported(path: Path) -> bool:
    """Return whether a file or folder holds weights that vitrail wrote for another library."""
    whole = path / "model.safetensors" if path.is_dir() else path
    return EXPORTED in (_metadata(whole) or {})


def holds_weights(path: Path) -> bool:
    """Return whether an existing path holds weights of others: a folder as timm and transformers have, or a file."""
    if path.is_dir():
        whole = path / "model.safetensors"
        names = (
            "config.json",
            "model_index.json",
            "open_clip_config.json",
            "pytorch_model.bin",
            whole.name,
        )
        listed = any((path / name).is_file() for name in names)
        return listed and not (path / "recipe.yaml").is_file() and not has_our_header(whole)
    if path.suffix == ".safetensors":  # one that cannot be read is reported as a broken model file
        metadata = _metadata(path)
        return metadata is not None and "vitrail" not in metadata
    weights_of_graph = path.suffix == ".bin" and path.with_suffix(".xml").is_file()
    return path.suffix in FILES and path.is_file() and not weights_of_graph


def is_published(model: str | Path) -> bool:
    """Return whether a model is published weights: of another program at a path, or a name that is no path."""
    path = expanded(model)
    return holds_weights(path) if path.exists() else is_hub_id(str(model)) or is_known_name(str(model))


def model_path(model: str | Path) -> Path:
    """Return the model file of published weights, with its notes as warnings; other paths are returned unchanged."""
    if not is_published(model):
        return Path(model)
    from vitrail.runs.published import published_model

    found = published_model(str(model))
    for note in found.notes:
        warnings.warn(note, stacklevel=3)
    return found.path


def is_hub_id(model: str) -> bool:
    """Return whether a word reads as organisation/repository, and not as a path below a folder that is here."""
    first = model.partition("/")[0]
    named = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", model) and not model.endswith(NO_NAMES)
    return bool(named) and first != runs_dir().name and not Path(first).exists()


def is_known_name(model: str) -> bool:
    """Return whether a word is the name of one of our networks, of timm's or their weights, or of added weights."""
    if family_of(model):
        return True
    if not _may_be_name(model):
        return _is_added(model)
    from vitrail.weights.detectors import detector

    if detector(model):
        return True
    import timm

    from vitrail.models.names import timm_name

    return bool(timm.is_model(timm_name(model))) or _is_added(model)


def nearest_name(model: str) -> str | None:
    """Return the name of a network, of a detector or of added weights that is most similar to a word, or None."""
    if not _may_be_name(model):
        return nearest(model, presets())
    import timm

    from vitrail.weights.detectors import DETECTORS
    from vitrail.weights.local_registry import known

    weights = [*(row.name for row in DETECTORS), *(entry.name for entry in known())]
    return nearest(model, [*presets(), *timm.list_models(pretrained=True), *weights])


def _may_be_name(model: str) -> bool:
    """Return whether it is worth the seconds that timm takes: all its names but a few have a digit or underscore."""
    named = re.fullmatch(r"[A-Za-z][\w.-]*", model) and not model.endswith(NO_NAMES)
    return bool(named) and (bool(re.search(r"[\d_]", model)) or model in PLAIN_NAMES)


def _is_added(model: str) -> bool:
    from vitrail.core.environment import cache_dir

    if not (cache_dir() / "weights" / "added.json").is_file():
        return False
    from vitrail.weights.local_registry import known

    return any(entry.name == model for entry in known())


def _metadata(path: Path) -> dict[str, str] | None:
    """Return the metadata of a safetensors file; None if it is none, or cannot be read."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        # The head is the same in every framework, and this one does not import torch.
        with safe_open(path, framework="np") as handle:
            return handle.metadata() or {}
    except (SafetensorError, OSError):
        return None
