"""Int8 quantization of linear layers and attention scores in the OpenVINO model, calibrated on images (SmoothQuant).

Weights of linear layers are quantized to -127 … 127 with one scale per output row, inputs to 256 uniform steps between
the smallest and largest value on the calibration images. Before this, input channels with large values are scaled down
and their weights scaled up, with the same product (SmoothQuant, Xiao et al. 2023, equation 4); large query channels are
balanced with their keys in the same way. Attention values, norms, convolutions and layers that read one vector per
image, such as the head, are not quantized.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from vitrail.core.cache import keep
from vitrail.core.errors import SettingError
from vitrail.infer.runtimes import core, openvino

HANDED_OVER = 0.5
"""Alpha of equation 4: 0 moves no scale to the weights, 1 moves all; chosen by measurement (docs/benchmarks.md)."""

LEAST = 1e-6
"""Assumed size of a channel that was always zero, to avoid division by zero."""

Array = NDArray[np.float32]

Ranges = Mapping[str, Array]
"""For every quantized input, by name, the smallest and largest value of each channel: (2, channels); for queries and
keys (2, heads, channels)."""


QUERIES, KEYS = 0, 1
"""Input ports of an attention node."""


class Rounded(NamedTuple):
    """A quantized input, and the axes over which its range is computed (all except those of channels and heads)."""

    input: Any
    over: NDArray[np.int64]


class Scales:
    """Ranges for int8: `known` ones, or computed once from calibration images (n, channels, height, width).

    Without `learn` only known ranges are accepted: other ranges would need a new check.
    """

    def __init__(self, learn: Callable[[], Tensor] | None = None, known: Ranges | None = None) -> None:
        self._learn, self.known = learn, known or {}

    def ranges(self, model: Any, settings: Mapping[str, Any]) -> Ranges:
        """Return the ranges for a model; SettingError if there are no calibration images or no linear layer."""
        if not layers(model):
            raise SettingError("it has no linear layer to quantize to int8")
        if self.known.keys() != rounded(model).keys():
            if self._learn is None:
                raise SettingError("int8 is calibrated on images, and there are none")
            self.known = ranges(model, self._learn().contiguous().numpy(), settings)
        return self.known

    def digest(self) -> str:
        """Return a digest that identifies these ranges; "" if there are none."""
        if not self.known:
            return ""
        digest = blake2b(digest_size=12)
        for name in sorted(self.known):
            digest.update(name.encode() + np.ascontiguousarray(self.known[name]).tobytes())
        return digest.hexdigest()


def read_ranges(path: Path) -> Ranges:
    """Read ranges from a file; empty if it is missing or cannot be read."""
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        return {}


def keep_ranges(path: Path, found: Ranges) -> None:
    """Write ranges to a cache file, if it can be written."""
    keep(path, lambda temporary: save_file(dict(found), temporary))


def layers(model: Any) -> dict[str, Any]:
    """Return the linear layers that can be quantized, by name."""
    found = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul" or node.get_attributes()["transpose_a"]:
            continue
        weights = node.input(1).get_source_output().get_node()
        constant = weights.get_type_name() == "Constant" and len(weights.get_output_shape(0)) == 2
        if constant and node.input(0).get_partial_shape().rank.get_length() > 2:
            found[node.get_friendly_name()] = node
    return found


def attentions(model: Any) -> dict[str, Any]:
    """Return the attention nodes of a model with static shapes whose queries and keys can be quantized, by name."""
    found = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "ScaledDotProductAttention":
            queries, keys = (node.input(port).get_partial_shape() for port in (QUERIES, KEYS))
            known = queries.is_static and keys.is_static and len(queries) == len(keys) == 4
            if (
                known and queries[1] == keys[1]
            ):  # excludes grouped-query attention, where query heads share keys
                found[node.get_friendly_name()] = node
    return found


def rounded(model: Any) -> dict[str, Rounded]:
    """Return every input that needs calibration, by name."""
    found = {}
    for name, node in layers(model).items():
        rank = node.input(0).get_partial_shape().rank.get_length()
        found[name] = Rounded(node.input(0), np.arange(rank - 1))
    for name, node in attentions(model).items():  # (b, heads, n, d): one range per head and channel
        found |= {_port(name, port): Rounded(node.input(port), np.array([0, 2])) for port in (QUERIES, KEYS)}
    return found


def _port(name: str, port: int) -> str:
    return f"{name}, {'queries' if port == QUERIES else 'keys'}"


def ranges(model: Any, pictures: Array, settings: Mapping[str, Any]) -> Ranges:
    """Run prepared images (n, channels, height, width), n >= 1, one by one, and return the ranges of their inputs."""
    ops, probe = openvino().opset13, model.clone()
    probe.reshape([1, *pictures.shape[1:]])
    own, named = len(probe.outputs), rounded(probe)
    for one in named.values():
        source = one.input.get_source_output()
        probe.add_outputs([reduce(source, one.over).output(0) for reduce in (ops.reduce_min, ops.reduce_max)])
    run = core().compile_model(probe, "CPU", dict(settings))
    results = [run(picture[None]) for picture in pictures]
    found = {}
    for i, name in enumerate(named):
        low, high = ([one[own + 2 * i + side] for one in results] for side in (0, 1))
        found[name] = np.stack([np.min(low, 0), np.max(high, 0)])
    return found


def quantize(model: Any, found: Ranges, handed_over: float = HANDED_OVER) -> None:
    """Quantize a model in place with these ranges; `handed_over` is alpha."""
    for name, node in layers(model).items():
        _round_layer(node, found[name], handed_over)
    for name, node in attentions(model).items():
        _round_scores(node, *(found[_port(name, port)] for port in (QUERIES, KEYS)))


def _round_layer(node: Any, found: Array, handed_over: float) -> None:
    ops, out_first = openvino().opset13, node.get_attributes()["transpose_b"]
    constant = node.input(1).get_source_output().get_node()
    weights = constant.get_data() if out_first else constant.get_data().T  # (outputs, channels)
    divided = _divisors(found, weights, handed_over)
    low, high = _even(found / divided)
    inputs = ops.multiply(node.input(0).get_source_output(), ops.constant(1 / divided))
    node.input(0).replace_source_output(ops.fake_quantize(inputs, low, high, low, high, 256).output(0))
    weights = weights * divided
    # All-zero rows have no scale; any positive one works.
    top = np.maximum(np.abs(weights).max(1, keepdims=True), np.finfo(np.float32).tiny)
    if not out_first:
        weights, top = weights.T, top.T
    whole = ops.fake_quantize(ops.constant(np.ascontiguousarray(weights)), -top, top, -top, top, 255)
    node.input(1).replace_source_output(whole.output(0))


def _round_scores(node: Any, queries: Array, keys: Array) -> None:
    """Quantize queries and keys, after scaling each channel of both to the same size."""
    ops = openvino().opset13
    sizes = [np.maximum(np.abs(one).max(0), LEAST) for one in (queries, keys)]  # (heads, channels)
    shared = np.sqrt(sizes[QUERIES] * sizes[KEYS])
    top = np.float32(shared.max())
    low = np.float32(-top * 128 / 127)
    for port, size in enumerate(sizes):
        source = node.input(port).get_source_output()
        balanced = ops.multiply(source, ops.constant((shared / size)[None, :, None].astype(np.float32)))
        node.input(port).replace_source_output(ops.fake_quantize(balanced, low, top, low, top, 256).output(0))


def _divisors(found: Array, weights: Array, handed_over: float) -> Array:
    """Return what divides the inputs and multiplies the weights of each channel (equation 4, geometric mean 1)."""
    inputs = np.maximum(np.abs(found).max(0), LEAST)
    sizes = inputs**handed_over / np.maximum(np.abs(weights).max(0), LEAST) ** (1 - handed_over)
    scaled: Array = (sizes / np.exp(np.log(sizes).mean())).astype(np.float32)
    return scaled


def _even(found: Array) -> tuple[np.float32, np.float32]:
    """Return the ends of 256 uniform levels that span the ranges and contain zero."""
    low, high = min(float(found[0].min()), 0.0), max(float(found[1].max()), 1e-6)
    step = (high - low) / 255
    low = round(low / step) * step
    return np.float32(low), np.float32(low + 255 * step)
