"""Weight files of every kind, opened without running anything in them."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vitrail.core.errors import WeightsError

PICKLES = (".bin", ".pth", ".pt", ".tar", ".pyth", ".ckpt")
SUFFIXES = (".safetensors", ".npz", *PICKLES)

WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model", "model_state")
"""Where training scripts put the weights among their other things; averages come first."""

FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


class Opened(NamedTuple):
    """What a file or folder holds: tensors by their own names, and what is written beside them."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: Mapping[str, str] = {}
    config: Mapping[str, Any] = {}
    preprocessing: Mapping[str, Any] = {}


def open_weights(path: Path) -> Opened:
    """Open .safetensors, .npz, .bin, .pth, .pt, .pth.tar or a Hugging Face folder.

    WeightsError where there is nothing, the file is not whole, or it holds code instead of weights alone.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; name a file or a folder of weights.")
    if path.suffix not in SUFFIXES:
        kinds = ", ".join(SUFFIXES)
        raise WeightsError(f"{path} is no kind of weights that is known; name a folder or one of {kinds}.")
    try:
        return _file(path)
    except (SafetensorError, zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{path} is truncated or damaged ({_first_line(error)}); fetch or copy it again."
        ) from error


def _file(path: Path) -> Opened:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as handle:
            names = handle.keys()
            return Opened(path, {name: handle.get_tensor(name) for name in names}, handle.metadata() or {})
    if path.suffix == ".npz":
        # NumPy leaves a file open that it opened itself and could not read.
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            return Opened(path, {name: _tensor(arrays[name]) for name in arrays.files})
    return Opened(path, _pickled(path))


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:  # bfloat16, which NumPy has no name for
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _pickled(path: Path) -> dict[str, Tensor]:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        match = re.search(r"GLOBAL ([\w.]+)", str(error))
        wants = f"wants to run {match.group(1)}" if match else "is no plain file of tensors"
        raise WeightsError(
            f"{path} {wants}, which could be harmful, so it was not opened; "
            "ask its author for a .safetensors file."
        ) from error
    return unwrapped(content, path)


def unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a training script's checkpoint, without what it wraps around them."""
    while isinstance(content, Mapping) and (key := next((k for k in WRAPPERS if _full(content, k)), None)):
        content = content[key]
    items = content.items() if isinstance(content, Mapping) else ()
    tensors = {name: value for name, value in items if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{path} holds no weights; name the checkpoint of a network.")
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _full(content: Mapping[Any, Any], key: str) -> bool:
    return isinstance(content.get(key), Mapping) and bool(content[key])


def _folder(path: Path) -> Opened:
    name = next((name for name in FOLDER_FILES if (path / name).is_file()), None)
    if name is None:
        raise WeightsError(f"{path} holds no weights ({', '.join(FOLDER_FILES)}); name another folder.")
    opened = _shards(path, name) if name.endswith(".json") else open_weights(path / name)
    return opened._replace(
        path=path,
        config=_json(path / "config.json"),
        preprocessing=_json(path / "preprocessor_config.json"),
    )


def _shards(path: Path, index: str) -> Opened:
    files = shard_names(path / index)
    missing = [name for name in files if not (path / name).is_file()]
    if missing or not files:
        raise WeightsError(
            f"{path} lacks {', '.join(missing) or 'its parts'}, which {index} names; copy them."
        )
    tensors: dict[str, Tensor] = {}
    for name in files:
        tensors.update(open_weights(path / name).tensors)
    return Opened(path, tensors)


def shard_names(index: Path) -> list[str]:
    """Return the files that an index names; a name that leaves the folder is refused (WeightsError)."""
    names = sorted(set(_json(index).get("weight_map", {}).values()))
    if any(Path(name).name != name for name in names):
        raise WeightsError(f"{index} names files outside its own folder; do not use it.")
    return names


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON ({_first_line(error)}); copy it again.") from error
    return content


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:120] or type(error).__name__
