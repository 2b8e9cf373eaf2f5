"""Linear layers of a translated network in whole numbers: weights once, inputs anew for every picture.

Weights are rounded to -127 … 127 with one scale a row of the output; OpenVINO rounds the inputs while it computes,
with a scale for every group of neighbouring numbers of a token. Nothing is learnt from pictures. Attention's own
products, norms and convolutions stay as they are.
"""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.infer.exported import openvino

WIDEST = 384
"""Numbers that share a scale, at most: the wider, the quicker, and for ViT-S/16 hardly less exact."""


def lighter(model: Any) -> int:
    """Round the weights of a model's linear layers, in place; returns how many inputs should share a scale, or 0.

    0 says that there was no layer to round.
    """
    ops = openvino().opset13
    widths: list[int] = []
    for node in model.get_ordered_ops():
        found = _weights(node)
        if found is None:
            continue
        # One scale an output: along the axis that the product sums over.
        axis = 1 if node.get_attributes()["transpose_b"] else 0
        scale = np.maximum(np.abs(found).max(axis, keepdims=True) / 127, np.finfo(np.float32).tiny)
        rounded = ops.convert(ops.constant(np.rint(found / scale).astype(np.int8)), "f32")
        weights = ops.multiply(rounded, ops.constant(scale.astype(np.float32)))
        node.input(1).replace_source_output(weights.output(0))
        widths.append(found.shape[axis])
    return _group(gcd(*widths)) if widths else 0


def _weights(node: Any) -> NDArray[np.float32] | None:
    """Return the weights of a linear layer, None for anything else."""
    if node.get_type_name() != "MatMul":
        return None
    source = node.input(1).get_source_output().get_node()
    if source.get_type_name() != "Constant" or len(source.get_output_shape(0)) != 2:
        return None
    weights: NDArray[np.float32] = source.get_data()
    return weights


def _group(width: int) -> int:
    """Return the largest divisor of a width that is no wider than allowed."""
    return next(size for size in range(min(width, WIDEST), 0, -1) if width % size == 0)
