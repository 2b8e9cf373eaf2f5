"""OpenVINO backend, faster than torch on most CPUs; the translated network is cached.

Translation takes seconds, loading a translation takes a fraction of a second. The cache is never trusted for
correctness: a loaded network is compared with the model's proof before it is used (`vitrail.infer.autotune`).
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.core.cache import unkept
from vitrail.infer.quantize_int8 import Scales, quantize
from vitrail.infer.reparameterize import folded
from vitrail.infer.runtimes import core, openvino
from vitrail.runs.device import fast_bf16
from vitrail.runs.network import Network

KEPT = 8
"""Largest number of translations in the cache; the least recently used ones are deleted."""

AREA = 8 * 224 * 224
"""Pixels per call: for ViT-S/16, eight images were faster than one, four, sixteen or thirty-two."""

CPU = torch.device("cpu")

Precision = Literal["float32", "bf16", "int8"]

Shape = tuple[int, ...]
"""(b, channels, height, width) of a batch."""


class Translated:
    """A network compiled by OpenVINO: float32 images (b, channels, height, width) -> its outputs in order, on the CPU.

    One graph with a fixed batch size computes all portions; the last one is padded. A graph with a dynamic batch size
    was 3 % slower, and a second graph would need its own check. `shape` is the shape of a batch; no portion is larger.
    A server, whose batches are of any size, has one with a dynamic batch size (`any_number`).

    Raises:
        SettingError: int8 without scales and calibration images, or for a network without linear layers.
    """

    def __init__(
        self,
        network: Network,
        shape: Shape,
        precision: Precision,
        kept: Path | None = None,
        scales: Scales | None = None,
        any_number: bool = False,
    ) -> None:
        self.portion = 1 if any_number else portion(shape)
        self.shape = (-1 if any_number else self.portion, *shape[1:])
        self.any_number = any_number
        settings = settings_for(precision)
        model = _opened(network, self.shape, kept)
        # Before int8 searches for layers to quantize: some shapes are unknown until then.
        model.reshape(list(self.shape))
        if precision == "int8":
            quantize(model, (scales or Scales()).ranges(model, settings))
        self._run = core().compile_model(model, "CPU", settings)
        self._alone = Lock()  # a compiled model has one request, which two threads would overwrite
        self.outputs = len(network.outputs)

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the network's outputs."""
        rest = -len(images) % self.portion
        filled = torch.cat([images, images.new_zeros(rest, *self.shape[1:])]) if rest else images
        found: list[list[Any]] = [[] for _ in range(self.outputs)]
        for part in torch.split(filled, len(images) if self.any_number else self.portion):
            with self._alone:
                answer = self._run(part.contiguous().numpy())
            for place, parts in enumerate(found):
                parts.append(answer[place])
        return [torch.from_numpy(np.concatenate(parts)[: len(images)]) for parts in found]

    def release(self) -> None:
        """Free the memory of the largest batch so far, which the runtime keeps: 12 MB an image of a ViT-S."""
        with self._alone:
            self._run.release_memory()


def portion(shape: Shape) -> int:
    """Return how many images of a batch are computed per call."""
    return min(shape[0], 32, max(4, round(AREA / (shape[2] * shape[3]))))


def settings_for(precision: Precision) -> dict[str, Any]:
    """Return the OpenVINO configuration: precision and number of threads."""
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if fast_bf16(CPU) and precision != "float32" else "f32",
        "PERFORMANCE_HINT": "LATENCY",  # all threads on one batch: two streams were not faster
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }


def _opened(network: Network, shape: Shape, kept: Path | None) -> Any:
    if kept is not None and os.path.isdir(kept):
        with suppress(OSError, RuntimeError):  # damaged, or being deleted: translate again
            if (kept / "digest").read_text() == _digest(kept):
                model = core().read_model(str(kept / "network.xml"))
                with suppress(OSError):  # the cache belongs to another user
                    os.utime(kept)
                return model
        shutil.rmtree(kept, ignore_errors=True)
    model = translate(network, shape)
    if kept is not None:
        _keep(model, kept)
    return model


def translate(network: Network, shape: Shape) -> Any:
    """Convert a network to an OpenVINO model with a dynamic batch size."""
    sample = torch.zeros(2, *shape[1:])  # with one image, torch.export would fix the batch size to 1
    sides = ({0: torch.export.Dim.DYNAMIC},)
    with torch.no_grad(), quietly():
        program = torch.export.export(OfImages(folded(network)).eval(), (sample,), dynamic_shapes=sides)
        model = openvino().convert_model(program)
    _decompose_group_norms(model)
    return model


def _decompose_group_norms(model: Any) -> None:
    """Replace each group norm by a normalization over groups, a scale and a shift, in place.

    OpenVINO 2026.4 crashes the process while it compiles a residual network with group norms in float32 for a fixed
    batch size. Decomposed, they work, and are faster (docs/benchmarks.md).
    """
    ops = openvino().opset13
    for node in model.get_ordered_ops():
        if node.get_type_name() != "GroupNormalization":
            continue
        given, scale, shift = (node.input(i).get_source_output() for i in range(3))
        attributes, rank = node.get_attributes(), len(given.get_partial_shape())
        grouped = ops.reshape(given, np.array([0, attributes["num_groups"], -1]), True)
        normed = ops.mvn(grouped, np.array([2]), True, attributes["epsilon"], "INSIDE_SQRT")
        whole = ops.reshape(normed, ops.shape_of(given), False)
        along = np.array([1, -1, *[1] * (rank - 2)])  # one value per channel
        scaled = ops.multiply(whole, ops.reshape(scale, along, False))
        node.output(0).replace(ops.add(scaled, ops.reshape(shift, along, False)).output(0))


class OfImages(nn.Module):
    """A network as a function from an image tensor to a tuple of outputs, as engines need it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs."""
        outputs = self.network({"images": images})
        return tuple(outputs[name] for name in self.network.outputs)


def _digest(kept: Path) -> str:
    digest = blake2b(digest_size=12)
    for name in ("network.xml", "network.bin"):
        digest.update((kept / name).read_bytes())
    return digest.hexdigest()


def _keep(model: Any, kept: Path) -> None:
    """Write a translation atomically, and delete the least recently used ones."""
    draft = None
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=kept.parent, prefix=".translating-"))
        openvino().save_model(model, str(draft / "network.xml"), compress_to_fp16=False)
        (draft / "digest").write_text(_digest(draft))
        os.replace(draft, kept)
    except (OSError, RuntimeError) as error:  # for example a full disk: the next job translates again
        if not os.path.isdir(kept):  # otherwise another process wrote it first
            unkept(error)
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
    with suppress(OSError):  # another process may delete the same files
        others = sorted(kept.parent.glob(f"*{kept.suffix}"), key=lambda one: one.stat().st_mtime)
        for old in others[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def quietly() -> Iterator[None]:
    """Suppress the internal warnings of the exporters."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
