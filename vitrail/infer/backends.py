"""Backends of a network (precision, memory layout, engine), and a module that runs a network with one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitrail.core.environment import compiler
from vitrail.data.batch import in_layout
from vitrail.infer.bf16_check import Bf16Check, check_bf16, keep_in_float32, noise
from vitrail.infer.openvino_backend import OfImages, Precision, Translated
from vitrail.infer.quantize_int8 import Scales
from vitrail.infer.reparameterize import folded
from vitrail.layers.heads import Output
from vitrail.layers.mahalanobis import output_of
from vitrail.runs.device import fast_bf16
from vitrail.runs.network import Network, without_reader

Engine = Literal["eager", "compiled", "openvino"]

_ENGINE_NAMES: Mapping[str, str] = MappingProxyType(
    {"eager": "", "compiled": ", compiled, weights frozen", "openvino": ", through OpenVINO"}
)


@dataclass(frozen=True, slots=True)
class Backend:
    """How to run a network; the default is float32 in eager mode, as in training."""

    precision: Precision = "float32"
    channels_last: bool = False
    engine: Engine = "eager"

    def __str__(self) -> str:
        return self.precision + (", channels last" if self.channels_last else "") + _ENGINE_NAMES[self.engine]


PLAIN = Backend()


def backends_for(network: Network, device: torch.device) -> list[Backend]:
    """Return the backends that are worth measuring on this machine, plain float32 first."""
    last = network.spec.attention == "none"  # convolutions are faster in channels-last layout
    precision: Precision = "bf16" if fast_bf16(device) else "float32"
    plans = [PLAIN, Backend("float32", last), Backend(precision, last)]
    if device.type == "cpu" and find_spec("openvino"):
        plans.append(Backend(precision, engine="openvino"))
        if any(isinstance(part, nn.Linear) for part in network.encoder.modules()):
            plans.append(Backend("int8", engine="openvino"))
    if device.type == "cuda" or (device.type == "cpu" and compiler()):
        plans.append(Backend(precision, last, "compiled"))
    return list(dict.fromkeys(plans))


class BackendNetwork(nn.Module):
    """A copy of a network that runs with a backend: dict of float32 images -> dict of float32 outputs.

    `shape` is the shape of a batch, with `any_number` only for the choice of convolutions; `kept` is the cache path of
    the OpenVINO translation, if any; int8 needs `scales`.
    """

    def __init__(
        self,
        network: Network,
        plan: Backend,
        shape: tuple[int, ...],
        kept: Path | None = None,
        scales: Scales | None = None,
        any_number: bool = False,
    ) -> None:
        super().__init__()
        network, self.reader = without_reader(network)
        self.plan, self.batch, self.outputs = plan, shape[0], network.outputs
        self.dtype = torch.bfloat16 if plan.precision == "bf16" else torch.float32
        self.layout = torch.channels_last if plan.channels_last else torch.contiguous_format
        self.check = Bf16Check()
        self.run: Callable[[Tensor], Sequence[Tensor]]
        if plan.engine == "openvino":
            self.run, self.dtype = (
                Translated(network, shape, plan.precision, kept, scales, any_number),
                torch.float32,
            )
            return
        copy = deepcopy(folded(network)).eval().to(memory_format=self.layout)
        if plan.precision == "bf16":
            self.check = _to_bf16(copy, shape, self.layout)
        self.run = compiled(OfImages(copy).eval()) if plan.engine == "compiled" else OfImages(copy).eval()

    def kept_in_float32(self) -> list[str]:
        """Report in one line the convolutions that stay in float32 because bf16 is wrong on this machine."""
        return Bf16Check(self.check.float32).lines()

    def release(self) -> None:
        """Free the memory of the largest batch so far, if the engine keeps it."""
        if isinstance(self.run, Translated):
            self.run.release()

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        """Return the network's outputs."""
        images = inputs["images"]
        count = len(images)
        if self.plan.engine == "compiled" and count < self.batch:  # another size would be recompiled
            images = torch.cat([images, images.new_zeros(self.batch - count, *images.shape[1:])])
        outputs = self.run(in_layout(images.to(self.dtype), self.layout))
        output = {name: out[:count].float() for name, out in zip(self.outputs, outputs, strict=True)}
        if self.reader is None:
            return output
        vectors = {place: output.pop(output_of(place)) for place in self.reader.places}
        return {**output, **self.reader(vectors)}


def _to_bf16(copy: Network, shape: tuple[int, ...], layout: torch.memory_format) -> Bf16Check:
    """Convert a network to bf16 in place, except convolutions that are wrong in bf16; return these.

    Whether the whole network is correct is checked later, on the proof images.
    """
    device = next(copy.parameters()).device
    images = in_layout(noise(shape[1:], device)[: shape[0]], layout)
    check = check_bf16(copy.encoder, images)
    keep_in_float32(copy.encoder, check.float32)
    copy.to(torch.bfloat16)
    for name in check.float32:
        copy.encoder.get_submodule(name).float()
    return check


def compiled(network: nn.Module) -> Callable[[Tensor], Sequence[Tensor]]:
    """Return the network compiled with frozen weights, for one batch size; callers pad the last batch.

    The limit of recompilations counts for each network alone: with one for all, the ninth would run uncompiled.
    """
    on_cuda = next(network.parameters()).device.type == "cuda"
    # "reduce-overhead" uses CUDA graphs.
    how: dict[str, Any] = {"mode": "reduce-overhead"} if on_cuda else {"options": {"freezing": True}}
    make: Any = torch.compile  # its stubs do not know `isolate_recompiles`
    run: Callable[[Tensor], Sequence[Tensor]] = make(network, dynamic=False, isolate_recompiles=True, **how)
    return run
