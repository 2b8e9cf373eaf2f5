"""Fold parallel training branches into one convolution each for inference.

RepVGG (Ding et al. 2021, arXiv:2101.03697, §3.3), MobileOne, RepViT and FastViT train with parallel branches whose
sum is one convolution; timm implements the folding. The folded network is used only if its outputs are equal.
"""

from __future__ import annotations

from copy import deepcopy

import torch

from vitrail.runs.network import Network

EQUAL = 1e-4
"""Largest allowed difference from the unfolded network in float32, relative to the largest output."""


def folded(network: Network) -> Network:
    """Return a copy with folded branches, or the network itself if there are none or the copy differs."""
    encoder = network.encoder.folded()
    if encoder is network.encoder:
        return network
    # The folded encoder shares no tensor with the branches, so they are not copied.
    head, reader = deepcopy((network.head, network.reader))
    twin = Network(encoder, head, network.outputs, reader).eval()
    return twin if _equal(network, twin) else network


def _equal(network: Network, twin: Network) -> bool:
    weight, config = next(network.parameters()), network.encoder.config
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(2, config.channels, *network.encoder.image_size, generator=draw).to(weight.device)
    was = network.training
    with torch.inference_mode():
        wanted, found = network.eval()({"images": images}), twin({"images": images})
    network.train(was)
    return all(
        bool((wanted[name] - found[name]).abs().max() <= EQUAL * wanted[name].abs().max()) for name in wanted
    )
