"""Read the tensors of a TorchScript archive without its code.

The archive is a zip: `code/` has the program, `data.pkl` the tree of modules, and `data/` the bytes of the tensors.
Only the last two are read, by an unpickler that knows tensors and nothing else; `torch.jit.load` would compile the
program.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from vitrail.core.errors import WeightsError

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "DoubleStorage": torch.float64,
        "FloatStorage": torch.float32,
        "HalfStorage": torch.float16,
        "BFloat16Storage": torch.bfloat16,
        "LongStorage": torch.int64,
        "IntStorage": torch.int32,
        "ShortStorage": torch.int16,
        "CharStorage": torch.int8,
        "ByteStorage": torch.uint8,
        "BoolStorage": torch.bool,
    }
)
"""Names of the storages that a weight may have → their type."""

LISTS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "restore_type_tag")
"""Functions of torch that give a list its type."""

PROGRAM = "__torch__"
"""The first name of all classes that the program of an archive defines."""


class _Module:
    """A module of the archive: its attributes by name, without its code."""


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive: a zip with a program."""
    try:
        with zipfile.ZipFile(path) as content:
            return any("/code/" in name for name in content.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return the tensors of all modules of an archive by their names, as its `state_dict` would.

    Raises:
        WeightsError: the archive has something other than modules, tensors and plain values.
    """
    with zipfile.ZipFile(path) as content:
        tree = next((name for name in content.namelist() if name.endswith("/data.pkl")), None)
        if tree is None:
            raise WeightsError(f"{path} is a TorchScript archive without its data; fetch or copy it again.")
        try:
            root = _Reader(content, tree.removesuffix(".pkl"), path).load()
            return dict(_tensors(root))
        except (pickle.UnpicklingError, KeyError, AttributeError, TypeError, IndexError) as error:
            raise WeightsError(
                f"{path} is a TorchScript archive whose modules cannot be read ({error}). Save its weights alone: "
                f"torch.save(torch.jit.load({str(path)!r}).state_dict(), 'weights.pth')"
            ) from error


class _Reader(pickle.Unpickler):
    """Builds modules without code, lists, and tensors from the bytes in the archive; everything else is refused."""

    def __init__(self, content: zipfile.ZipFile, folder: str, path: Path) -> None:
        super().__init__(BytesIO(content.read(f"{folder}.pkl")))
        self.content, self.folder, self.path = content, folder, path
        self.stored: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a global of the pickle; WeightsError if it could do something."""
        if module.split(".")[0] == PROGRAM:
            return _Module
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        allowed: Mapping[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            **{("torch.jit._pickle", one): _as_it_is for one in LISTS},
        }
        if (module, name) not in allowed:
            raise WeightsError(
                f"{self.path} wants to run {module}.{name}, which could be harmful, so it was not opened; ask its "
                "author for a .safetensors file."
            )
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        """Return the values of a storage, which the archive names by its type and its file."""
        _, dtype, key, _, count = pid  # the device does not matter: it is read on the CPU
        if key not in self.stored:
            data = self.content.read(f"{self.folder}/{key}")
            values = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
            if len(values) < count:
                raise pickle.UnpicklingError(f"{key} has {len(values)} values, not {count}")
            self.stored[key] = values
        return self.stored[key]


def _tensor(values: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return values.as_strided(size, stride, offset)  # refuses places outside of the values


def _as_it_is(value: Any, *_: Any) -> Any:
    return value


def _tensors(module: Any, front: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield f"{front}{name}", value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{front}{name}.")
