"""MAE against its official outputs, and against transformers and timm."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from vitrail.layers.position import grid_sines


@pytest.mark.parametrize(("width", "side"), [(64, 4), (96, 7), (128, 3)])
def test_sines(shared, width, side):
    golden = load_file(shared("goldens/mae_sincos.io.safetensors"))[f"sincos_{width}_{side}"]
    ours = grid_sines(width, (side, side))
    torch.testing.assert_close(ours, golden[1:], rtol=0, atol=1e-6)
    assert golden[0].eq(0).all()
