"""Which patches are hidden: drawn in training, fixed by the id of an image everywhere else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.core.errors import SettingError
from vitrail.core.seeds import derive


def count_seen(patches: int, mask: float) -> int:
    """Return the number of patches that stay visible (arXiv:2111.06377), at least one, and at least one is hidden.

    Raises:
        SettingError: the image is a single patch.
    """
    if patches < 2:
        raise SettingError(
            "The image is a single patch, so nothing of it can be hidden. Choose a larger --imgsz or smaller patches."
        )
    return min(max(1, int(patches * (1 - mask))), patches - 1)


def drawn(count: int, patches: int, seen: int, rng: np.random.Generator) -> Tensor:
    """Return the visible patches of so many images, in raster order: int64 (count, seen)."""
    return _lowest(rng.random((count, patches)), seen)


def fixed(ids: Sequence[str], patches: int, seen: int) -> Tensor:
    """Return the visible patches of images by their ids, the same on every call: int64 (b, seen)."""
    noise = [np.random.default_rng(derive(0, "mask", one)).random(patches) for one in ids]
    return _lowest(np.stack(noise), seen)


def hidden_of(kept: Tensor, patches: int) -> Tensor:
    """Return 1 for each hidden patch and 0 for each visible one: float32 (b, patches)."""
    hidden = torch.ones(len(kept), patches, device=kept.device)
    return hidden.scatter_(1, kept, 0.0)


def _lowest(noise: NDArray[np.float64], seen: int) -> Tensor:
    lowest = np.argsort(noise, axis=1, kind="stable")[:, :seen]
    return torch.from_numpy(np.sort(lowest, axis=1))
