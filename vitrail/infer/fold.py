"""Branches that training needs and answering does not, folded into one convolution each.

RepVGG (Ding et al. 2021, arXiv:2101.03697, §3.3), MobileOne, RepViT and FastViT train with parallel branches whose
sum is one convolution; timm knows how to write it. The folded network is used only where it was seen to be equal.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

import torch
from torch import nn

from vitrail.runs.assemble import Network

EQUAL = 1e-4
"""How far an output may lie from the unfolded network's, in parts of the largest output, in float32."""


def folded(network: nn.Module) -> nn.Module:
    """Return a copy with its branches folded, or the network itself where there are none or the copy differs."""
    config: Any = network.encoder.config if isinstance(network, Network) else None
    if config is None or config.family != "timm":  # none of our own networks has such branches
        return network
    from timm.utils.model import reparameterize_model

    twin = deepcopy(network).eval()
    before = _modules(twin)
    encoder: Any = cast(Network, twin).encoder
    encoder.net = reparameterize_model(encoder.net, inplace=True)
    same = _modules(twin) == before
    return network if same or not _equal(network, twin, (config.channels, *config.size)) else twin


def _modules(network: nn.Module) -> list[str]:
    return [f"{name} {type(module).__name__}" for name, module in network.named_modules()]


def _equal(network: nn.Module, twin: nn.Module, shape: tuple[int, ...]) -> bool:
    weight = next(network.parameters())
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(2, *shape, generator=draw).to(weight.device)
    was = network.training
    with torch.inference_mode():
        wanted, found = network.eval()(images), twin(images)
    network.train(was)
    return bool((wanted - found).abs().max() <= EQUAL * wanted.abs().max())
