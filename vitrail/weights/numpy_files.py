"""NumPy's `.npz` files of arrays."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Return the arrays of an .npz file by name; bfloat16 is read, and no object of Python."""
    # NumPy does not close a file that it opened itself and could not read.
    with path.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
        return {name: _tensor(arrays[name]) for name in arrays.files}


def holds_arrays(path: Path) -> bool:
    """Return whether a zip file is NumPy's, not torch's."""
    try:
        with zipfile.ZipFile(path) as content:
            return any(name.endswith(".npy") for name in content.namelist())
    except (zipfile.BadZipFile, OSError):
        return False  # the function that opens it raises the error


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:  # bfloat16, which NumPy does not have
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
