"""What nobody records is exported as if there were no recorder at all."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vitrail.layers import attention, window_attention
from vitrail.models.factory import build
from vitrail.models.swin import SwinConfig
from vitrail.models.vit import ViTConfig

VIT = ViTConfig(image=(21, 35), patch=7, channels=5, width=33, depth=3, heads=3)
SWIN = SwinConfig((48, 72), 2, 5, width=14, depths=(2, 2), heads=(1, 2), window=3)


def nodes(encoder, images):
    """Return every node of the exported graph: its kind, name, target and arguments."""
    graph = torch.export.export(encoder, (images,)).graph
    return [(node.op, node.name, str(node.target), str(node.args), str(node.kwargs)) for node in graph.nodes]


@pytest.mark.parametrize("config", [VIT, SWIN], ids=["vit", "swin"])
def test_the_graph_is_node_for_node_that_of_a_network_without_a_recorder(monkeypatch, config):
    encoder = build(config).eval()
    images = torch.zeros(2, 5, *config.size)
    ours = nodes(encoder, images)
    asked = []

    def bare(q, k, v, *, bias=None, record=None, where=None):
        asked.append(q.shape)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)

    for page in (attention, window_attention):
        monkeypatch.setattr(page, "attend", bare)
    assert nodes(encoder, images) == ours
    assert asked
    kernels = [target for _, _, target, _, _ in ours if "scaled_dot_product_attention" in target]
    assert len(kernels) == encoder.spec.blocks
    assert not any("softmax" in target for _, _, target, _, _ in ours)
