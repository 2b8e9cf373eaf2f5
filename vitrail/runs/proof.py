"""The proof in a model file: a generated image and the fingerprint of the network's output on it.

Pixel (r, c) of channel k holds (31 r + 17 c + 57 k + 3 (r c mod 29)) mod 256. The image is 61 high and 47 wide, so that
any change of resize, crop or channel order changes the output. For raw images the values are stretched to their
scale, named bands to two deviations around their mean, with gaps.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.data.batch import Batch, images_only
from vitrail.data.preprocess import Preprocess
from vitrail.runs.run_network import answering, evaluating, run_network
from vitrail.tasks.base import FINGERPRINT, Task

HEIGHT, WIDTH = 61, 47
STEP = 5
GAPS = 23
"""Pixels of a raw proof image whose value is a multiple of this hold no data."""

TOLERANCE = 1e-4
"""Largest allowed difference between a number of a fingerprint and the proof, in float32."""

ROUNDED = 5e-3
"""The same for a graph whose preprocessing rounds pixels: of 150,000, up to five lie so close to the middle of two
numbers that float32 rounds them elsewhere, which changes a probability by up to 0.001 (EfficientNet-Lite0)."""


def picture(channels: int = 3) -> NDArray[np.uint8]:
    """Return the proof image: uint8 (61, 47, channels)."""
    r, c, k = np.ogrid[:HEIGHT, :WIDTH, :channels]
    values: NDArray[np.int64] = (31 * r + 17 * c + 57 * k + 3 * (r * c % 29)) % 256
    return values.astype(np.uint8)


def proof_image_for(preprocess: Preprocess) -> NDArray[Any]:
    """Return the proof image for this preprocessing; for raw images as float32 in their scale, with gaps (NaN).

    For clips, (frames, 61, 47, channels): each frame is the one before, moved down by `STEP` rows, from the bottom to
    the top.
    """
    image = picture(preprocess.channels)
    if preprocess.frames:
        return np.stack([np.roll(image, turn * STEP, 0) for turn in range(preprocess.frames)])
    if not preprocess.raw:
        return image
    values = image.astype(np.float32) * np.float32(preprocess.scale / 255)
    if preprocess.bands:
        mean, std = np.asarray(preprocess.mean), np.asarray(preprocess.std)
        values = (preprocess.scale * (mean + (image / 63.75 - 2) * std)).astype(np.float32)
    values[image % GAPS == 0] = np.nan
    return values


def answer(network: nn.Module, task: Task[Any, Any], preprocess: Preprocess) -> list[float]:
    """Return the fingerprint of the network's output on the proof image, in float32 on the CPU, weights contiguous.

    By default a GPU rounds convolutions to fewer bits, and the same file must give the same output on every machine.
    A model file holds contiguous weights, and convolutions round differently in another memory format.
    """
    pixels, _ = preprocess.eval(proof_image_for(preprocess))
    weight = next(network.parameters())
    if weight.device.type != "cpu" or not all(one.is_contiguous() for one in network.parameters()):
        network = _on_cpu(network)
    with evaluating(network):
        return fingerprint(task, network, images_only(pixels[None].to(weight.dtype)))


def fingerprint(task: Task[Any, Any], network: nn.Module, batch: Batch[Any]) -> list[float]:
    """Return the output of a network on the CPU for a batch, as the numbers that the task compares."""
    compute = answering(task, network)
    outputs = [output for _, output in run_network(compute, [batch], torch.device("cpu"))]
    numbers = task.fingerprint(outputs[0])
    if numbers.shape[0] != len(batch) or numbers[0].numel() > FINGERPRINT:
        raise SettingError(
            f"The fingerprint of the task {task.name!r} has the shape {tuple(numbers.shape)}, but a model file holds "
            f"(1, at most {FINGERPRINT}). Return vitrail.tasks.base.within(…) of it."
        )
    return [float(number) for number in numbers.flatten().tolist()]


def _on_cpu(network: nn.Module) -> nn.Module:
    """Return a copy on the CPU with contiguous weights, without using more GPU memory, which may be full."""
    tensors = [*network.parameters(), *network.buffers()]
    copy: nn.Module = deepcopy(network, {id(tensor): _tensor_on_cpu(tensor) for tensor in tensors})
    return copy


def _tensor_on_cpu(tensor: Tensor) -> Tensor:
    copy = tensor.detach().cpu().contiguous()
    return nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy


def drift(stored: list[float], found: list[float]) -> float:
    """Return the largest difference of two fingerprints: infinity for different lengths, NaN if one holds a NaN."""
    if len(stored) != len(found):
        return float("inf")
    return float(np.max(np.abs(np.subtract(stored, found)), initial=0.0))  # the built-in max would skip a NaN


def find_non_finite(network: nn.Module, task: Task[Any, Any], preprocess: Preprocess) -> str | None:
    """Return in words which part of a network is not finite (weights or output on the proof image), or None."""
    for name, weight in network.named_parameters():
        if not bool(torch.isfinite(weight.detach()).all()):
            return f"the weights {name} are not finite"
    if not all(map(math.isfinite, answer(network, task, preprocess))):
        return "the network's output on its proof image is not finite"
    return None
