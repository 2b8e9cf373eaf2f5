"""A network translated for OpenVINO, which runs it quicker than torch on most processors; kept in the cache.

Translating takes seconds, opening what was translated a fraction of one. A cache is never trusted for more than
speed: what it gives is compared with the model's proof before it answers (`vitrail.infer.fast`).
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.core.files import keep
from vitrail.infer.exported import core, openvino
from vitrail.infer.fold import folded
from vitrail.infer.int8 import Ranges, layers, lighter, ranges
from vitrail.runs.device import fast_bf16

KEPT = 8
"""Translations that stay in the cache; those unused for longest make room."""

AREA = 8 * 224 * 224
"""Pixels handed over at once: of ViT-S/16, eight pictures ran quicker than one, four, sixteen or thirty-two."""

CPU = torch.device("cpu")

Precision = Literal["float32", "bf16", "int8"]

Learn = Callable[[], Tensor]
"""Gives prepared pictures (n, channels, height, width) that int8 learns scales from; asked where none are kept."""

Shape = tuple[int, int, int]
"""(channels, height, width) of one input."""


class Translated:
    """A network as OpenVINO runs it: float32 images (b, channels, height, width) -> output, on the CPU.

    Single pictures run through a graph of their own, made for one picture; others in portions.

    Raises:
        SettingError: int8 without pictures to learn from.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: Shape,
        precision: Precision,
        kept: Path | None = None,
        learn: Learn | None = None,
    ) -> None:
        self.shape = shape
        self.portion = min(32, max(4, round(AREA / (shape[1] * shape[2]))))
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if fast_bf16(CPU) and precision != "float32" else "f32",
            "PERFORMANCE_HINT": "LATENCY",  # all threads on one batch: two streams were no quicker
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._model = self._opened(network, kept)
        if precision == "int8":
            lighter(self._model, self._ranges(kept, learn))
        self._ready: dict[int, Any] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Return the network's output."""
        if len(images) == 1:
            return self._ask(images, 1)
        return torch.cat([self._ask(part, -1) for part in torch.split(images, self.portion)])

    def _ask(self, images: Tensor, count: int) -> Tensor:
        if count not in self._ready:
            self._model.reshape([count, *self.shape])
            self._ready[count] = core().compile_model(self._model, "CPU", self._settings)
        return torch.from_numpy(self._ready[count](images.contiguous().numpy())[0])

    def _ranges(self, kept: Path | None, learn: Learn | None) -> Ranges:
        known = _read_ranges(kept) if kept else {}
        if known and known.keys() == layers(self._model).keys():
            return known
        if learn is None:
            raise SettingError("int8 learns its scales from pictures. Give it some.")
        found = ranges(self._model, learn().contiguous().numpy(), self._settings)
        if kept:
            keep(kept / RANGES, lambda temporary: save_file(dict(found), temporary))
        return found

    def _opened(self, network: nn.Module, kept: Path | None) -> Any:
        if kept is not None and (kept / "network.xml").is_file():
            try:
                model = core().read_model(str(kept / "network.xml"))
                os.utime(kept)
                return model
            except RuntimeError:
                shutil.rmtree(kept)  # damaged: it is made again
        model = translate(network, self.shape)
        if kept is not None:
            _keep(model, kept)
        return model


def translate(network: nn.Module, shape: Shape) -> Any:
    """Return a network as a model of OpenVINO, for any number of pictures of one shape."""
    sample = torch.zeros(2, *shape)  # one picture would be taken for the only number there is
    sides = ({0: torch.export.Dim.DYNAMIC},)
    with torch.no_grad(), quietly():
        program = torch.export.export(_Images(folded(network).eval()), (sample,), dynamic_shapes=sides)
        return openvino().convert_model(program)


class _Images(nn.Module):
    """A network as a function of images alone: what else it could be given is no part of a graph."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.network(images)
        return out


RANGES = "ranges.safetensors"
"""What int8 learnt, beside the translation."""


def _read_ranges(kept: Path) -> Ranges:
    try:
        return load_file(kept / RANGES)
    except (OSError, SafetensorError):
        return {}  # not learnt yet, or damaged: it is learnt again


def _keep(model: Any, kept: Path) -> None:
    """Write a translation in one step, and let go of those that were not used for longest."""
    draft = None
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=kept.parent, prefix=".translating-"))
        openvino().save_model(model, str(draft / "network.xml"), compress_to_fp16=False)
        os.replace(draft, kept)
    except (
        OSError,
        RuntimeError,
    ):  # a full disk, or another process was first: the next job translates again
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
    others = sorted(kept.parent.glob(f"*{kept.suffix}"), key=lambda one: one.stat().st_mtime)
    for old in others[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def quietly() -> Iterator[None]:
    """Keep the exporters' own warnings, which are about their insides, away from the user."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
