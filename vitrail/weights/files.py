"""Open weight files of all formats, without executing code in them."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vitrail.core.errors import WeightsError
from vitrail.weights import keras_files, numpy_files
from vitrail.weights.torchscript import is_torchscript, read_torchscript
from vitrail.weights.unwrap_checkpoint import stripped, unwrap

PICKLES = (".bin", ".pth", ".pt", ".tar", ".pyth", ".ckpt")
SUFFIXES = (".safetensors", ".npz", ".h5", *PICKLES)

FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
)

PIPELINE = "model_index.json"
"""The description of a folder of diffusers, which has the network in `transformer` and its autoencoder in `vae`."""

OPEN_CLIP = "open_clip_config.json"
"""The description of a network of open_clip, which may lie beside a config.json of transformers."""

Kind = Literal["safetensors", "npz", "pickle", "keras"]

HDF5 = b"\x89HDF"
"""The first bytes of Keras' files."""

OTHERS: Mapping[bytes, str] = MappingProxyType(
    {
        b"version https://git-lfs": "a pointer of Git LFS, and not the weights; fetch them: git lfs pull",
        b"GGUF": "a GGUF file, which is not read; take the .safetensors that it was made from",
        b"<!DOCTYPE": "a web page, and not the weights; download the file itself",
        b"<html": "a web page, and not the weights; download the file itself",
    }
)
"""First bytes of other files that are mistaken for weights → their description."""

BESIDE_WEIGHTS = (
    "numpy",
    "pathlib",
    "datetime",
    "enum",
    "uuid",
    "types",
    "omegaconf",
    "yacs",
    "fvcore",
    "mmengine",
    "mmcv",
    "ml_collections",
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "pytorch_lightning",
    "__main__",
)
"""Packages whose objects training programs store beside weights: NumPy numbers, paths, settings. They are never built:
an empty placeholder replaces each."""


class Opened(NamedTuple):
    """The content of a file or folder: tensors by their original names, and the configuration beside them.

    `notes` state which set of weights is used, if there are several.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: Mapping[str, str] = {}
    config: Mapping[str, Any] = {}
    preprocessing: Mapping[str, Any] = {}
    notes: tuple[str, ...] = ()


class _Inert(dict[Any, Any]):
    """Placeholder for objects that a checkpoint stores beside its weights; accepts everything and does nothing."""

    def __new__(cls, *args: Any) -> _Inert:
        """Return an empty placeholder, for any arguments."""
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""


def open_weights(path: Path) -> Opened:
    """Open .safetensors, .npz, .h5, .bin, .pth, .pt, .pth.tar, or a folder of timm or Hugging Face, by its content.

    A file with a usual name is read together with the config.json beside it. Raise WeightsError if nothing is there,
    the file is incomplete, or it contains code.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; name a file or a folder of weights.")
    described = any((path.parent / name).is_file() for name in ("config.json", OPEN_CLIP))
    if path.name in FOLDER_FILES and described:
        return _described(_alone(path), path.parent)
    return _alone(path)


def _alone(path: Path) -> Opened:
    kind = _kind(path)
    try:
        return _file(path, kind)
    except (SafetensorError, zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{path} is truncated or damaged ({_first_line(error)}); fetch or copy it again."
        ) from error


def _kind(path: Path) -> Kind:
    """Return the format of a file by its first bytes, or else by its suffix."""
    with path.open("rb") as handle:
        begin = handle.read(24)
    if what := next((what for mark, what in OTHERS.items() if begin.startswith(mark)), None):
        raise WeightsError(f"{path} is {what}.")
    if begin.startswith(HDF5):
        return "keras"
    if begin[8:9] == b"{" and int.from_bytes(begin[:8], "little") < 1 << 30:
        return "safetensors"
    suffix = path.suffix.lower()
    if begin[:2] == b"PK":
        return "npz" if suffix == ".npz" or numpy_files.holds_arrays(path) else "pickle"
    if begin[:1] == b"\x80" and suffix not in (".npz", ".safetensors"):
        return "pickle"
    if suffix not in SUFFIXES:
        kinds = ", ".join(SUFFIXES)
        raise WeightsError(f"{path} is no kind of weights that is known; name a folder or one of {kinds}.")
    return "pickle" if suffix in PICKLES else "npz" if suffix == ".npz" else "safetensors"


def _file(path: Path, kind: Kind) -> Opened:
    if kind == "safetensors":
        with safe_open(path, framework="pt") as handle:
            names = handle.keys()
            tensors = stripped({name: handle.get_tensor(name) for name in names})
            return Opened(path, tensors, handle.metadata() or {})
    if kind == "keras":
        return Opened(path, keras_files.read_tensors(path), keras_files.FORMAT)
    if kind == "npz":
        return Opened(path, numpy_files.read_arrays(path))
    return _pickled(path)


def _pickled(path: Path) -> Opened:
    content = _content(path)
    found = unwrap(content, str(path))
    notes = (f"of {', '.join((found.where, *found.others))} in the file, {found.where} is taken",)
    return Opened(path, found.tensors, config=_trained(content), notes=notes if found.others else ())


def _content(path: Path) -> Any:
    """Return the content of a pickle, with placeholders for everything except tensors; of a program its tensors."""
    if is_torchscript(path):
        return read_torchscript(path)
    inert: dict[str, Any] = {}
    while True:
        try:
            with torch.serialization.safe_globals([argparse.Namespace, *((_Inert, name) for name in inert)]):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            match = re.search(r"GLOBAL ([\w.]+)", str(error))
            name = match.group(1) if match else ""
            if name.partition(".")[0] not in BESIDE_WEIGHTS or name in inert:
                raise _refused(path, name) from error
            inert[name] = _Inert


def _refused(path: Path, name: str) -> WeightsError:
    if name.startswith("torch.nn."):
        return WeightsError(
            f"{path} holds a whole network as an object of Python ({name}), which opening would run. Save its weights "
            "alone: torch.save(network.state_dict(), 'weights.pth')"
        )
    wants = f"wants to run {name}" if name else "is no plain file of tensors"
    return WeightsError(
        f"{path} {wants}, which could be harmful, so it was not opened; ask its author for a .safetensors file."
    )


def _trained(content: Any) -> dict[str, Any]:
    """Return the network in a training checkpoint of timm or torchvision, in the form of timm's config.json.

    The arguments of one of RF-DETR are returned as `rfdetr`.
    """
    if not isinstance(content, Mapping):
        return {}
    name, said = content.get("arch"), content.get("args")
    values = vars(said) if isinstance(said, argparse.Namespace) else said if isinstance(said, dict) else {}
    if "out_feature_indexes" in values and "num_windows" in values:
        return {"rfdetr": values}
    if not isinstance(name, str):
        return {}
    arguments = dict(values.get("model_kwargs") or {})
    if size := values.get("img_size"):
        arguments["img_size"] = size
    return {"architecture": name, "model_args": arguments}


def _folder(path: Path) -> Opened:
    if (stated := _json(path / PIPELINE)) and (path / "transformer").is_dir():
        opened = _folder(path / "transformer")
        return opened._replace(path=path, config={**opened.config, "id2label": stated.get("id2label") or {}})
    name = next((name for name in FOLDER_FILES if (path / name).is_file()), None) or only_file(path)
    if name is None:
        raise WeightsError(f"{path} holds no weights ({', '.join(FOLDER_FILES)}); name another folder.")
    opened = _shards(path, name) if name.endswith(".json") else _alone(path / name)
    return _described(opened, path)._replace(path=path)


def only_file(path: Path) -> str | None:
    """Return the only weight file in a folder without files of the usual names."""
    names = [one.name for one in sorted(path.iterdir()) if one.suffix.lower() in SUFFIXES and one.is_file()]
    if len(names) > 1:
        raise WeightsError(
            f"{path} holds several files of weights ({', '.join(names[:4])}); name one of them."
        )
    return names[0] if names else None


def _described(opened: Opened, folder: Path) -> Opened:
    """Return the opened file with the configuration of its folder."""
    said = _json(folder / "config.json") or opened.config
    if beside := _json(folder / OPEN_CLIP):
        said = {**said, "open_clip": beside}
    steps = _json(folder / "preprocessor_config.json")
    beside_text = _json(folder / "processor_config.json").get(
        "image_processor"
    )  # of networks that read images and text
    if not steps and isinstance(beside_text, dict):
        steps = beside_text
    return opened._replace(config=said, preprocessing=steps)


def _shards(path: Path, index: str) -> Opened:
    files = shard_names(path / index)
    missing = [name for name in files if not (path / name).is_file()]
    if missing or not files:
        raise WeightsError(
            f"{path} lacks {', '.join(missing) or 'its parts'}, which {index} names; copy them."
        )
    tensors: dict[str, Tensor] = {}
    for name in files:
        tensors.update(_alone(path / name).tensors)
    return Opened(path, tensors)


def shard_names(index: Path) -> list[str]:
    """Return the files in an index; raise WeightsError for a path outside the folder."""
    names = sorted(set(_json(index).get("weight_map", {}).values()))
    if any(Path(name).name != name for name in names):
        raise WeightsError(f"{index} names files outside its own folder; do not use it.")
    return names


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content: Any = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON ({_first_line(error)}); copy it again.") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} is a JSON file of another kind; copy it again.")
    return content


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:120] or type(error).__name__
