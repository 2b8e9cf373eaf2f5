"""Initial values of parameters, as stated in the papers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_FILLS = (
    torch.Tensor.normal_,
    torch.Tensor.uniform_,
    nn.init.kaiming_uniform_,
    nn.init.normal_,
    nn.init.uniform_,
)
_DRAWS = (torch.randn, torch.rand)


class ZerosForRandom(TorchFunctionMode):
    """Zeros in place of random initial values, for a network whose weights are read from a file.

    On the meta device random values have no use either, and there torch imports its compiler to draw them: a second.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function; a random one gives zeros."""
        named = dict(kwargs or {})
        if func in _FILLS:
            tensor: torch.Tensor = args[0] if args else named["tensor"]
            with torch.no_grad():
                return tensor.zero_()
        if func in _DRAWS:
            named.pop("generator", None)
            return torch.zeros(*args, **named)
        return func(*args, **named)


@torch.no_grad()
def xavier(layer: nn.Linear, *, parts: int = 1, bias_std: float = 0.0) -> None:
    """Fill with Xavier-uniform values, and biases with N(0, `bias_std`).

    `parts` is the number of projections that are stacked in the matrix; each has its own fan-out.
    """
    rows, cols = layer.weight.shape
    bound = sqrt(6 / (rows // parts + cols))
    layer.weight.uniform_(-bound, bound)
    if layer.bias is not None:
        if bias_std:
            layer.bias.normal_(std=bias_std)
        else:
            layer.bias.zero_()


@torch.no_grad()
def as_in_mae(network: nn.Module) -> None:
    """Fill the linear layers of a network with Xavier-uniform values of the whole matrix; biases 0 (MAE's code).

    Unlike in Google's code, queries, keys and values are one matrix with one fan-out.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            xavier(module)


@torch.no_grad()
def lecun(layer: nn.Conv2d | nn.Linear) -> None:
    """Fill with a normal of variance 1 / fan-in, truncated at two deviations; biases 0 (Flax's initial values)."""
    std = layer.weight[0].numel() ** -0.5 / 0.8796  # 0.8796: the deviation of a truncated unit normal
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    if layer.bias is not None:
        layer.bias.zero_()


@torch.no_grad()
def fan_out(network: nn.Module) -> None:
    """Fill the convolutions of a network with N(0, 2 / fan-out), with the fan of one group; biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan = len(module.weight) * module.weight[0, 0].numel() // module.groups
            module.weight.normal_(std=sqrt(2 / fan))
            if module.bias is not None:
                module.bias.zero_()


@torch.no_grad()
def truncated(network: nn.Module, std: float) -> None:
    """Fill the linear layers, learned tokens and tables of a network with N(0, `std`), truncated at ±2; biases 0.

    Norms and convolutions are not changed, as in the code of DeiT and Swin.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                module.bias.zero_()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad and name.rpartition(".")[2] in ("tokens", "table"):
            nn.init.trunc_normal_(parameter, std=std)


@torch.no_grad()
def scaled_by_depth(blocks: Sequence[nn.Module], width: int) -> None:
    """Fill the linear layers of Transformer blocks as in the code of CLIP (arXiv:2103.00020); biases 0.

    Layers that end a branch (`out`, `fall`) get N(0, 1 / (2·width·depth)), the first of an MLP (`rise`)
    N(0, 1 / (2·width)), all others N(0, 1 / width).
    """
    shrink = {"out": (2 * len(blocks)) ** -0.5, "fall": (2 * len(blocks)) ** -0.5, "rise": 2**-0.5}
    for block in blocks:
        for name, layer in block.named_modules():
            if isinstance(layer, nn.Linear):
                layer.weight.normal_(std=width**-0.5 * shrink.get(name.rpartition(".")[2], 1.0))
                if layer.bias is not None:
                    layer.bias.zero_()
