"""The files of weights, for a digest of them."""

from __future__ import annotations

from pathlib import Path

from vitrail.weights.files import FOLDER_FILES, OPEN_CLIP, PIPELINE, only_file, shard_names

BESIDE = ("config.json", "preprocessor_config.json", "processor_config.json", OPEN_CLIP)
"""Files that describe the weights in their folder."""


def parts_of(path: Path) -> list[Path]:
    """Return the files that `open_weights` reads of a path: the weights with their shards, and what describes them."""
    if (path / PIPELINE).is_file() and (path / "transformer").is_dir():
        return [path / PIPELINE, *parts_of(path / "transformer"), *_autoencoder(path)]
    whole, folder = path, path.parent
    if path.is_dir():
        name = next((one for one in FOLDER_FILES if (path / one).is_file()), None) or only_file(path)
        whole, folder = path / (name or FOLDER_FILES[0]), path
    shards = shard_names(whole) if whole.name.endswith(".index.json") else []
    beside = BESIDE if path.is_dir() or path.name in FOLDER_FILES else ()
    described = [one for one in (whole, *(folder / name for name in (*shards, *beside))) if one.is_file()]
    return described + _autoencoder(folder)


def _autoencoder(folder: Path) -> list[Path]:
    """Return the description of the autoencoder beside a network, if there is one (`dit_files`)."""
    path = folder / "vae" / "config.json"
    return [path] if path.is_file() else []
