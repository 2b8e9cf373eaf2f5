"""Whether a network answers in bf16 as in float32 on this machine, and which of its convolutions must stay in float32.

On a CPU with AMX, torch 2.15 answers garbage for some convolutions in bf16 (stride = kernel, 4 to 24 channels) and
computes their backward rightly, so a training would go on with a wrong forward and say nothing. Therefore one batch is
compared before bf16 is used, once for a network, a shape and a machine.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from math import inf, isfinite
from pathlib import Path
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitrail.core.cache import keep_json
from vitrail.core.environment import cache_dir
from vitrail.infer.timing import machine
from vitrail.layers.tokens import Features

IMAGES = 4
"""Images of a batch that are compared."""

CONVOLUTION_OFF = 0.02
"""Relative error from which a convolution is wrong: rounding costs 0.002 to 0.007, the fault above 1."""

NETWORK_OFF = 0.5
"""Relative error of the features from which a network is wrong: rounding costs up to 0.17 in deep untrained ones."""


class Bf16Check(NamedTuple):
    """What a comparison found; all convolutions of `float32`, by name, answer wrongly in bf16."""

    float32: tuple[str, ...] = ()
    off: float = 0.0  # relative error of the features, with those convolutions in float32

    @property
    def faithful(self) -> bool:
        """Whether the network may be computed in bf16, but for those convolutions."""
        return self.off <= NETWORK_OFF

    def lines(self) -> list[str]:
        """Return in a line what is not computed in bf16, and why; nothing where all is."""
        if not self.faithful:
            return [
                f"Computed in float32: on this machine the network's bf16 answers are {self.off:.0%} off."
            ]
        if not self.float32:
            return []
        what = "convolution answers" if len(self.float32) == 1 else "convolutions answer"
        names = ", ".join(self.float32[:3]) + (", …" if len(self.float32) > 3 else "")
        return [
            f"{len(self.float32)} {what} wrongly in bf16 on this machine, so float32 is kept there: {names}."
        ]


def check_bf16(network: nn.Module, images: Tensor) -> Bf16Check:
    """Compare bf16 with float32 on images (b, channels, height, width), or return what was found before.

    `network` holds float32 weights on the device of `images` and returns Features or a tensor; it is left as it was.
    """
    images = images[:IMAGES]
    path = _path(network, images)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Bf16Check(tuple(map(str, found["float32"])), float(found["off"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing, or of another version: it is compared again
    check = compare_with_float32(network, images)
    keep_json(path, check._asdict())
    return check


def noise(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return images as prepared images are, of mean 0 and deviation 1, where there is none yet."""
    return torch.randn(IMAGES, *shape, generator=torch.Generator().manual_seed(0)).to(device)


def keep_in_float32(network: nn.Module, names: Collection[str]) -> None:
    """Let these convolutions of a network, and no others, compute in float32, whatever is around them.

    Nothing else changes: not a name, a weight, nor an answer in float32. Copies of the network do the same.
    """
    for name, module in network.named_modules():
        if name in names:
            module.__dict__["forward"] = MethodType(_in_float32, module)
        elif getattr(module.__dict__.get("forward"), "__func__", None) is _in_float32:
            del module.__dict__["forward"]


def _in_float32(module: nn.Module, x: Tensor) -> Tensor:
    """Answer as the module's own class does, in float32, and hand that on in the type that was asked for."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    with torch.autocast(kind, enabled=False):
        answer: Tensor = type(module).forward(module, x.float())
    return answer.to(dtype)


def _path(network: nn.Module, images: Tensor) -> Path:
    device = images.device
    said = (
        repr(network),
        (tuple(images.shape), images.stride()),
        (machine(), sorted(torch.cpu.get_capabilities().items())),
        torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    )
    return cache_dir() / "bf16" / f"{blake2b(repr(said).encode(), digest_size=12).hexdigest()}.json"


@torch.no_grad()
def compare_with_float32(network: nn.Module, images: Tensor) -> Bf16Check:
    """Compare the convolutions of a network, then its features, in bf16 with float32 on a batch of images."""
    training = {module: module.training for module in network.modules()}
    network.eval()
    off: dict[str, float] = {}
    try:
        keep_in_float32(network, ())
        with _watched(network, off):
            exact = _features(network(images))
        wrong = tuple(name for name, error in off.items() if not error <= CONVOLUTION_OFF)
        keep_in_float32(network, wrong)
        with torch.autocast(images.device.type, torch.bfloat16):
            rounded = _features(network(images))
        keep_in_float32(network, ())
    finally:
        for module, was in training.items():
            module.training = was
    return Bf16Check(wrong, _off(rounded, exact))


@contextmanager
def _watched(network: nn.Module, off: dict[str, float]) -> Iterator[None]:
    """Compute every convolution that is called in bf16 too, and note by its name how far that is off."""

    def compare(name: str, module: nn.Module, given: tuple[Any, ...], exact: Tensor) -> None:
        with torch.autocast(exact.device.type, torch.bfloat16):
            rounded = module.forward(*given)
        off[name] = max(off.get(name, 0.0), _off(rounded, exact))

    hooks = [
        module.register_forward_hook(partial(compare, name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _features(output: Any) -> Tensor:
    if isinstance(output, Features):
        return output.tokens.x if output.pooled is None else output.pooled
    found: Tensor = output
    return found


def _off(rounded: Tensor, exact: Tensor) -> float:
    """Return the relative error, 0 where float32 itself is not finite, and infinity where bf16 alone is not."""
    wanted = exact.double()
    size = float(wanted.square().mean().sqrt())
    error = float((rounded.double() - wanted).square().mean().sqrt())
    if not isfinite(size):
        return 0.0  # there is nothing to compare with; a training stops and says so
    # An answer of zeros is held to be as large as the smallest normal number.
    return error / max(size, torch.finfo(torch.float32).tiny) if isfinite(error) else inf
