"""Ways to run a network: in which numbers and by which engine; and the twin of a network that runs so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from vitrail.core.environment import compiler
from vitrail.infer.bf16_check import Bf16Check, check_bf16, keep_in_float32, noise
from vitrail.infer.openvino_backend import OfImages, Precision, Translated
from vitrail.infer.quantize_int8 import Scales
from vitrail.infer.reparameterize import folded
from vitrail.layers.heads import Output
from vitrail.runs.device import fast_bf16
from vitrail.runs.network import Network

Engine = Literal["eager", "compiled", "openvino"]

_SAID: Mapping[str, str] = MappingProxyType(
    {"eager": "", "compiled": ", compiled, weights frozen", "openvino": ", through OpenVINO"}
)


@dataclass(frozen=True, slots=True)
class Backend:
    """A way to run a network; the default is float32 as it was trained."""

    precision: Precision = "float32"
    channels_last: bool = False
    engine: Engine = "eager"

    def __str__(self) -> str:
        return self.precision + (", channels last" if self.channels_last else "") + _SAID[self.engine]


PLAIN = Backend()


def backends_for(network: Network, device: torch.device) -> list[Backend]:
    """Return the plans that are worth asking about on this machine, plain float32 first."""
    last = network.spec.attention == "none"  # convolutions read an image's channels together
    precision: Precision = "bf16" if fast_bf16(device) else "float32"
    plans = [PLAIN, Backend(precision, last)]
    if device.type == "cpu" and find_spec("openvino"):
        plans.append(Backend(precision, engine="openvino"))
        if any(isinstance(part, nn.Linear) for part in network.encoder.modules()):
            plans.append(Backend("int8", engine="openvino"))
    if device.type == "cuda" or (device.type == "cpu" and compiler()):
        plans.append(Backend(precision, last, "compiled"))
    return list(dict.fromkeys(plans))


class BackendNetwork(nn.Module):
    """A network's twin that runs by a plan: images by name in float32 -> outputs by name in float32.

    `shape` is that of a batch; `kept` is where a translation is kept, if anywhere; int8 needs `scales`.
    """

    def __init__(
        self,
        network: Network,
        plan: Backend,
        shape: tuple[int, int, int, int],
        kept: Path | None = None,
        scales: Scales | None = None,
    ) -> None:
        super().__init__()
        self.plan, self.batch, self.outputs = plan, shape[0], network.outputs
        self.dtype = torch.bfloat16 if plan.precision == "bf16" else torch.float32
        self.layout = torch.channels_last if plan.channels_last else torch.contiguous_format
        self.check = Bf16Check()
        self.run: Callable[[Tensor], Sequence[Tensor]]
        if plan.engine == "openvino":
            self.run, self.dtype = (
                Translated(network, shape, plan.precision, kept, scales),
                torch.float32,
            )
            return
        twin = deepcopy(folded(network)).eval().to(memory_format=self.layout)
        if plan.precision == "bf16":
            self.check = _rounded(twin, shape, self.layout)
        self.run = compiled(OfImages(twin).eval()) if plan.engine == "compiled" else OfImages(twin).eval()

    def kept_in_float32(self) -> list[str]:
        """Return in a line which convolutions are not rounded, because they answer wrongly here; often none."""
        return Bf16Check(self.check.float32).lines()

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        """Return the network's outputs."""
        images = inputs["images"]
        count = len(images)
        if self.plan.engine == "compiled" and count < self.batch:  # another size would be compiled anew
            images = torch.cat([images, images.new_zeros(self.batch - count, *images.shape[1:])])
        found = self.run(images.to(self.dtype).contiguous(memory_format=self.layout))
        return {name: out[:count].float() for name, out in zip(self.outputs, found, strict=True)}


def _rounded(twin: Network, shape: tuple[int, int, int, int], layout: torch.memory_format) -> Bf16Check:
    """Round a network's weights in place, but for convolutions that answer wrongly in bf16; return which they are.

    Whether the whole answers rightly is for the proof to tell, on images of its own.
    """
    device = next(twin.parameters()).device
    images = noise(shape[1:], device)[: shape[0]].contiguous(memory_format=layout)
    check = check_bf16(twin.encoder, images)
    keep_in_float32(twin.encoder, check.float32)
    twin.to(torch.bfloat16)
    for name in check.float32:
        twin.encoder.get_submodule(name).float()
    return check


def compiled(network: nn.Module) -> Callable[[Tensor], Sequence[Tensor]]:
    """Return the network compiled with frozen weights; the last batch is filled up to one size."""
    if next(network.parameters()).device.type == "cuda":
        # Reduced overhead means CUDA graphs.
        return torch.compile(network, mode="reduce-overhead", dynamic=False)
    return torch.compile(network, dynamic=False, options={"freezing": True})
