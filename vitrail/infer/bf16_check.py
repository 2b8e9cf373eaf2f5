"""Check that bf16 agrees with float32 on this machine, and find convolutions that must stay in float32.

On a CPU with AMX, the forward of torch 2.15 returns garbage for some convolutions in bf16 (stride = kernel, 4 to 24
channels), while their backward is correct. Training would silently continue with a wrong forward. Therefore one batch
is compared before bf16 is used, once per network, shape and machine.
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
"""Number of images that are compared."""

CONVOLUTION_OFF = 0.02
"""Relative error above which a convolution is wrong: rounding causes 0.002 to 0.007, the bug more than 1."""

NETWORK_OFF = 0.5
"""Relative error of the features above which a network is wrong: rounding causes up to 0.17 in deep untrained
networks."""


class Bf16Check(NamedTuple):
    """Result of the comparison; `float32` names the convolutions that are wrong in bf16."""

    float32: tuple[str, ...] = ()
    off: float = 0.0  # relative error of the features, with those convolutions in float32

    @property
    def faithful(self) -> bool:
        """Whether the network may run in bf16, except for these convolutions."""
        return self.off <= NETWORK_OFF

    def lines(self) -> list[str]:
        """Report in one line what is not computed in bf16, and why; empty if everything is."""
        if not self.faithful:
            return [
                f"Computed in float32: on this machine the network's bf16 outputs are wrong by {self.off:.0%}."
            ]
        if not self.float32:
            return []
        what = "convolution is" if len(self.float32) == 1 else "convolutions are"
        names = ", ".join(self.float32[:3]) + (", …" if len(self.float32) > 3 else "")
        return [f"{len(self.float32)} {what} wrong in bf16 on this machine and computed in float32: {names}."]


def check_bf16(network: nn.Module, images: Tensor) -> Bf16Check:
    """Compare bf16 with float32 on images (b, channels, height, width), or return the cached result.

    `network` holds float32 weights on the device of `images` and returns Features or a tensor; it is not changed.
    """
    images = images[:IMAGES]
    path = _path(network, images)
    try:
        cached = json.loads(path.read_text(encoding="utf-8"))
        return Bf16Check(tuple(map(str, cached["float32"])), float(cached["off"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # missing, or written by another version: compare again
    check = compare_with_float32(network, images)
    keep_json(path, check._asdict())
    return check


def noise(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return random images with mean 0 and deviation 1, like prepared ones, if there are no real images yet."""
    return torch.randn(IMAGES, *shape, generator=torch.Generator().manual_seed(0)).to(device)


def keep_in_float32(network: nn.Module, names: Collection[str]) -> None:
    """Compute these convolutions of a network, and no others, in float32, also under autocast.

    Names, weights and float32 outputs do not change. Copies of the network behave the same.
    """
    for name, module in network.named_modules():
        if name in names:
            module.__dict__["forward"] = MethodType(_in_float32, module)
        elif getattr(module.__dict__.get("forward"), "__func__", None) is _in_float32:
            del module.__dict__["forward"]


def _in_float32(module: nn.Module, x: Tensor) -> Tensor:
    """Run the forward of the module's class in float32, and return the result in the requested dtype."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    with torch.autocast(kind, enabled=False):
        answer: Tensor = type(module).forward(module, x.float())
    return answer.to(dtype)


def _path(network: nn.Module, images: Tensor) -> Path:
    device = images.device
    identity = (
        repr(network),
        (tuple(images.shape), images.stride()),
        (machine(), sorted(torch.cpu.get_capabilities().items())),
        torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    )
    return cache_dir() / "bf16" / f"{blake2b(repr(identity).encode(), digest_size=12).hexdigest()}.json"


@torch.no_grad()
def compare_with_float32(network: nn.Module, images: Tensor) -> Bf16Check:
    """Compare the convolutions of a network, then its features, in bf16 with float32 on a batch of images."""
    training = {module: module.training for module in network.modules()}
    network.eval()
    off: dict[str, float] = {}
    try:
        keep_in_float32(network, ())
        with _compare_convolutions(network, off):
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
def _compare_convolutions(network: nn.Module, off: dict[str, float]) -> Iterator[None]:
    """Compute every convolution that runs also in bf16, and record the relative error under its name."""

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
    tensor: Tensor = output
    return tensor


def _off(rounded: Tensor, exact: Tensor) -> float:
    """Return the relative error: 0 if float32 is not finite, infinity if only bf16 is not finite."""
    wanted = exact.double()
    size = float(wanted.square().mean().sqrt())
    error = float((rounded.double() - wanted).square().mean().sqrt())
    if not isfinite(size):
        return 0.0  # nothing to compare with; training stops and reports it
    # Avoid division by zero: outputs of all zeros get the size of the smallest normal number.
    return error / max(size, torch.finfo(torch.float32).tiny) if isfinite(error) else inf
