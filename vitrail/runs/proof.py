"""The proof inside a model file: one generated image and the fingerprint of what training answered to it.

Pixel (r, c) of channel k holds (31 r + 17 c + 57 k + 3 (r c mod 29)) mod 256; the image is 61 high and 47 wide,
so that no resize, crop or channel swap can hide. For raw images it is stretched over their scale, with gaps.
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
GAPS = 23
"""Every pixel whose value this divides holds no data in a raw proof image."""

TOLERANCE = 1e-4
"""How far a number of a fingerprint may lie from the proof in float32."""


def picture(channels: int = 3) -> NDArray[np.uint8]:
    """Return the proof image: uint8 (61, 47, channels)."""
    r, c, k = np.ogrid[:HEIGHT, :WIDTH, :channels]
    values: NDArray[np.int64] = (31 * r + 17 * c + 57 * k + 3 * (r * c % 29)) % 256
    return values.astype(np.uint8)


def proof_image_for(preprocess: Preprocess) -> NDArray[Any]:
    """Return the proof image as these steps take it; raw, it fills their scale as float32 and has gaps (NaN)."""
    plain = picture(preprocess.channels)
    if not preprocess.raw:
        return plain
    values = plain.astype(np.float32) * np.float32(preprocess.scale / 255)
    values[plain % GAPS == 0] = np.nan
    return values


def answer(network: nn.Module, task: Task[Any, Any], preprocess: Preprocess) -> list[float]:
    """Return the fingerprint of what the network says of the proof image, in float32 on the CPU.

    A GPU rounds convolutions to fewer bits unless told otherwise; the same file shall give the same answer anywhere.
    """
    pixels, _ = preprocess.eval(proof_image_for(preprocess))
    weight = next(network.parameters())
    if weight.device.type != "cpu":
        network = _on_cpu(network)
    with evaluating(network):
        return fingerprint(task, network, images_only(pixels[None].to(weight.dtype)))


def fingerprint(task: Task[Any, Any], network: nn.Module, batch: Batch[Any]) -> list[float]:
    """Return what a network on the CPU says of a batch, as the numbers that its task's proofs compare."""
    compute = answering(task, network)
    outputs = [output for _, output in run_network(compute, [batch], torch.device("cpu"))]
    numbers = task.fingerprint(outputs[0])
    if numbers.shape[0] != len(batch) or numbers[0].numel() > FINGERPRINT:
        raise SettingError(
            f"The fingerprint of the task {task.name!r} has the shape {tuple(numbers.shape)}, and a model file holds "
            f"(1, at most {FINGERPRINT}). Return vitrail.tasks.base.within(…) of it."
        )
    return [float(number) for number in numbers.flatten().tolist()]


def _on_cpu(network: nn.Module) -> nn.Module:
    """Return a copy on the CPU; nothing more is asked of the GPU, whose memory may be full."""
    tensors = [*network.parameters(), *network.buffers()]
    copy: nn.Module = deepcopy(network, {id(tensor): _moved(tensor) for tensor in tensors})
    return copy


def _moved(tensor: Tensor) -> Tensor:
    there = tensor.detach().cpu()
    return nn.Parameter(there, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else there


def drift(stored: list[float], found: list[float]) -> float:
    """Return the largest difference between two answers (infinity where their lengths differ, NaN where one is)."""
    if len(stored) != len(found):
        return float("inf")
    return float(np.max(np.abs(np.subtract(stored, found)), initial=0.0))  # a plain max would pass over a NaN


def find_non_finite(network: nn.Module, task: Task[Any, Any], preprocess: Preprocess) -> str | None:
    """Return in words what of a network is not finite, its weights or its answer to the proof image, or None."""
    for name, weight in network.named_parameters():
        if not bool(torch.isfinite(weight.detach()).all()):
            return f"the weights {name} are not finite"
    if not all(map(math.isfinite, answer(network, task, preprocess))):
        return "the network's answer to its proof image is not finite"
    return None
