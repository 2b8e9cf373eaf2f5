"""The layout of Keras' weights-only `.h5` files of WetMapFormer.

Keras numbers layers of a kind in the order in which they are made, from 0 where a session begins, and the numbers run
on when a second network is made. Names here are those of a fresh session: the third `conv2d` is `conv2d_2`. The order
is that of the notebook; the three positions of a block come before the rest of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from vitrail.weights.rules import SAME, TRANSPOSE, Op, Rule, Table

CONV = Op(lambda theirs: theirs[0].permute(3, 2, 0, 1), lambda ours: (ours.permute(2, 3, 1, 0),))
CHANNELWISE = Op(lambda theirs: theirs[0].permute(2, 3, 0, 1), lambda ours: (ours.permute(2, 3, 0, 1),))
LINEAR = Op(lambda theirs: theirs[0].flatten(0, 2).T, lambda ours: (ours.T[None, None],))
ALONG_BANDS = Op(
    lambda theirs: theirs[0][0].permute(3, 2, 1, 0), lambda ours: (ours.permute(3, 2, 1, 0)[None],)
)
# With stride 1 a transposed convolution is a convolution with the kernel turned by half a turn.
TURNED = Op(
    lambda theirs: theirs[0].flip(0, 1).permute(2, 3, 0, 1),
    lambda ours: (ours.permute(2, 3, 0, 1).flip(0, 1),),
)
COUNTER = Op(lambda theirs: torch.tensor(0), lambda ours: ())


class Weight(NamedTuple):
    """One tensor of a layer: their name, ours, and the op between."""

    theirs: str
    ours: str
    op: Op = SAME


BIAS = Weight("bias", "bias")
NORM = (Weight("gamma", "weight"), Weight("beta", "bias"))

WEIGHTS: Mapping[str, tuple[Weight, ...]] = MappingProxyType(
    {
        "conv3d": (Weight("kernel", "weight", ALONG_BANDS), BIAS),
        "batch_normalization": (
            *NORM,
            Weight("moving_mean", "running_mean"),
            Weight("moving_variance", "running_var"),
        ),
        "separable_conv2d": (
            Weight("depthwise_kernel", "near.weight", CHANNELWISE),
            Weight("pointwise_kernel", "mix.weight", CONV),
            Weight("bias", "mix.bias"),
        ),
        "conv2d_transpose": (Weight("kernel", "weight", TURNED), BIAS),
        "conv2d": (Weight("kernel", "weight", CONV), BIAS),
        "conv2d 1x1": (Weight("kernel", "weight", LINEAR), BIAS),
        "depthwise_conv2d": (Weight("depthwise_kernel", "weight", CHANNELWISE), BIAS),
        "layer_normalization": NORM,
        "dense": (Weight("kernel", "weight", TRANSPOSE), BIAS),
        "dense empty": (),
        "dense bias": (BIAS,),
        "multi_head_relative_positional_kernel_bias": (Weight("positional_embedding", "table"),),
    }
)
"""Kind of layer → its tensors in the order of Keras. The first word is the name of the layer; `dense empty` has tensors
without numbers only, and `dense bias` has one beside its bias."""


class Layer(NamedTuple):
    """A layer: its kind in `WEIGHTS`, and our name of the module."""

    kind: str
    ours: str

    @property
    def keras(self) -> str:
        """Keras' name of the kind."""
        return self.kind.split()[0]


def layers(config: Any) -> Iterator[Layer]:
    """Yield the layers with weights in the order of Keras' file, between the normalization and the classifier."""
    yield from (Layer("conv3d", f"extractor.{name}") for name in ("narrow", "wide"))
    yield Layer("batch_normalization", "extractor.norm")
    yield from (Layer("separable_conv2d", f"extractor.{name}") for name in ("first", "second"))
    yield Layer("conv2d_transpose", "extractor.decode1")
    yield Layer("batch_normalization", "extractor.norm1")
    yield Layer("conv2d", "extractor.skip")
    yield Layer("conv2d_transpose", "extractor.decode2")
    yield Layer("batch_normalization", "extractor.norm2")
    yield Layer("conv2d", "extractor.merge")
    for stage, depth in enumerate(config.depths):
        yield Layer("conv2d", f"embeds.{stage}.project")
        yield Layer("layer_normalization", f"embeds.{stage}.norm")
        for block in range(depth):
            attends = stage == 1 and config.heads > 0
            yield from _block(f"stages.{stage}.{block}", attends, config.as_published)
    yield Layer("batch_normalization", "norm")


def _block(ours: str, attends: bool, as_published: bool) -> Iterator[Layer]:
    positions = [Layer("depthwise_conv2d", f"{ours}.pos{side}") for side in (1, 3, 5)]
    if attends:
        yield Layer("layer_normalization", f"{ours}.norm1")
        yield Layer("dense", f"{ours}.attention.qkv")
        yield Layer("multi_head_relative_positional_kernel_bias", f"{ours}.attention")
        yield from positions
        yield Layer("dense", f"{ours}.attention.out")
    else:
        yield from positions
        yield Layer("batch_normalization", f"{ours}.mixer.norm")
        yield Layer("conv2d 1x1", f"{ours}.mixer.rise")
        yield Layer("depthwise_conv2d", f"{ours}.mixer.near")
        yield Layer("conv2d 1x1", f"{ours}.mixer.fall")
    yield Layer("layer_normalization" if attends else "batch_normalization", f"{ours}.norm2")
    kinds = ("dense empty", "dense bias") if as_published else ("dense", "dense")
    yield Layer(kinds[0], f"{ours}.mlp.rise")
    yield Layer(kinds[1], f"{ours}.mlp" if as_published else f"{ours}.mlp.fall")


def numbered(kind: str, number: int) -> str:
    """Return the name of a layer in a fresh session of Keras: conv2d, conv2d_1, …"""
    return f"{kind}_{number}" if number else kind


def table(config: Any) -> Table:
    """Return the table of a WetMapFormer with these settings; layers without numbers do not count (`canonical`)."""
    counts: Counter[str] = Counter()
    rules = [Rule("{rest}.num_batches_tracked", (), COUNTER)]
    for layer in layers(config):
        weights = WEIGHTS[layer.kind]
        if not weights:
            continue
        name = numbered(layer.keras, counts[layer.keras])
        counts[layer.keras] += 1
        rules += [Rule(f"{layer.ours}.{one.ours}", f"{name}/{one.theirs}", one.op) for one in weights]
    head = (
        Rule("linear.weight", "predictions/kernel", TRANSPOSE),
        Rule("linear.bias", "predictions/bias"),
    )
    return Table("Keras WetMapFormer", tuple(rules), head)
