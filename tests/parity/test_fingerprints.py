"""Eight recorded logits per family: they test a clone without reference data, on any machine.

Parameters are filled by a formula, not drawn, so that no generator's version matters. When a change of the
numbers is meant, print the new rows with `python tests/parity/test_fingerprints.py`.
"""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import nn

from vitrail.layers.elastic import set_keep
from vitrail.layers.heads import DenseHead, DistilledHead, LinearHead
from vitrail.models.clip import ClipConfig
from vitrail.models.deit import DeiTConfig
from vitrail.models.dinov2 import DinoV2Config
from vitrail.models.dit import DiTConfig
from vitrail.models.factory import build
from vitrail.models.mae import MAEConfig
from vitrail.models.mixer import MixerConfig
from vitrail.models.supervit import SuperViTConfig
from vitrail.models.swin import SwinConfig
from vitrail.models.t2t import T2TConfig
from vitrail.models.timesformer import TimeSformerConfig
from vitrail.models.vit import ViTConfig
from vitrail.models.vvt import VVTConfig
from vitrail.models.wetmapformer import WetMapFormerConfig

CONFIGS = {
    "vit": ViTConfig(image=32, patch=8, width=48, depth=3, heads=3),
    "vit tanh": ViTConfig(image=32, patch=8, width=48, depth=3, heads=3, gelu="tanh", prefix=()),
    "vit hybrid": ViTConfig(image=64, patch=2, width=48, depth=2, heads=3, stem=(32, 1, 1)),
    "dinov2": DinoV2Config(image=28, patch=7, width=48, depth=3, heads=3),
    "dinov2 registers": DinoV2Config(
        image=28, patch=7, width=48, depth=2, heads=3, mlp="swiglu", registers=2
    ),
    "deit": DeiTConfig(image=32, patch=8, width=48, depth=3, heads=3, prefix=("cls", "dist")),
    "deit3": DeiTConfig(
        image=32, patch=8, width=48, depth=3, heads=3, position="1d_patches", layer_scale=1e-4
    ),
    "mae": MAEConfig(image=32, patch=8, width=48, depth=3, heads=3),
    "mae pooled": MAEConfig(image=32, patch=8, width=48, depth=3, heads=3, pooled=True),
    "dit": DiTConfig(image=32, patch=8, width=48, depth=3, heads=3, classes=3),
    "clip": ClipConfig(image=32, patch=8, width=48, depth=3, heads=3),
    "vit 2d": ViTConfig(image=32, patch=8, width=48, depth=3, heads=3, position="2d"),
    "vit relative": ViTConfig(image=32, patch=8, width=48, depth=3, heads=3, position="relative"),
    "vit none": ViTConfig(image=32, patch=8, width=48, depth=3, heads=3, position="none"),
    "swin absolute": SwinConfig(
        image=48, patch=2, width=24, depths=(2, 2), heads=(2, 4), window=4, position="absolute"
    ),
    "t2t transformer": T2TConfig(
        image=32, tokens="transformer", token_width=24, width=48, depth=2, heads=3, scale="width"
    ),
    "swin": SwinConfig(image=48, patch=2, width=24, depths=(2, 2), heads=(2, 4), window=4),
    "mixer": MixerConfig(image=(32, 64), patch=8, width=48, depth=3, places=20, hidden=96),
    "t2t": T2TConfig(image=32, token_width=24, width=48, depth=2, heads=3),
    "supervit": SuperViTConfig(image=56, patch=8, width=48, depth=4, heads=3, stations=(1, 2, 3)),
    "supervit lvvit": SuperViTConfig(
        image=56, patch=8, width=48, depth=4, heads=3, hidden=3.0, form="lvvit", stations=(1, 2, 3)
    ),
    "vvt": VVTConfig(
        image=48, widths=(12, 22, 28, 44), depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), hidden=(3, 2, 2, 2)
    ),
    "vvt product": VVTConfig(
        48, 3, (12, 22), (1, 1), (1, 1), (3, 2), reduce=(1, 2), shrink=(2, 1), form="product"
    ),
    **{
        f"timesformer {name}": TimeSformerConfig(
            image=32, patch=8, frames=3, width=48, depth=2, heads=3, attention=name
        )
        for name in ("divided", "joint", "space")
    },
    "wetmapformer": WetMapFormerConfig(32, 3, widths=(12, 22), depths=(2, 2), head_dim=11),
    "wetmapformer published": WetMapFormerConfig(
        8, 3, widths=(12, 22), depths=(1, 2), head_dim=11, as_published=True
    ),
}

RECORDED: dict[str, list[float]] = {
    "vit": [-0.45278, 0.43529, 0.08988, -0.39643, 0.17096, 0.0152, 0.00219, 0.08224],
    "vit tanh": [-0.75928, 0.89659, -0.19536, -0.47337, 0.52592, -0.34146, 0.10658, 0.27709],
    "vit hybrid": [-0.5049, 0.58099, -0.03122, -0.39835, 0.29602, -0.13384, 0.05473, 0.17216],
    "dinov2": [0.94577, -1.36324, 1.18067, -0.31958, -0.73379, 1.01979, -0.56351, 0.14961],
    "dinov2 registers": [1.26903, -0.35496, -0.41467, 0.86291, -0.8967, 0.25511, 0.52477, -0.61978],
    "deit": [-0.09311, 0.19812, -0.08525, -0.16425, 0.18802, -0.05672, 0.01265, 0.05539],
    "deit3": [0.05981, -0.95012, 1.51221, -1.13069, -0.03563, 0.91509, -1.08098, 0.8717],
    "mae": [-0.61922, 0.8969, -0.29994, -0.3687, 0.50059, -0.38954, 0.15493, 0.29325],
    "mae pooled": [-0.62888, 0.90801, -0.30462, -0.37368, 0.5115, -0.39853, 0.15576, 0.30074],
    "dit": [-1.21359, 1.53618, -0.73202, -0.26945, 0.74688, -0.90534, 0.77348, -0.17626],
    "clip": [-2.8458, 2.2915, 0.00455, -2.10182, 2.48184, -1.35588, -0.40605, 1.87197],
    "vit 2d": [-0.68343, 0.84093, -0.18469, -0.44893, 0.49371, -0.32065, 0.09641, 0.28778],
    "vit relative": [-0.06919, 0.42661, -0.23713, 0.02453, -0.08056, -0.01719, 0.23806, -0.17333],
    "vit none": [-0.14954, 0.15863, 0.16861, -0.23356, -0.12487, 0.25782, -0.04475, -0.0791],
    "swin absolute": [-2.06115, 2.01473, -0.36278, -1.3594, 1.83869, -1.17809, -0.0739, 1.29194],
    "t2t transformer": [-0.31323, 0.3356, 0.14303, -0.40348, 0.11711, 0.14362, -0.17338, 0.21954],
    "swin": [-1.89073, 1.71067, -0.05052, -1.59929, 1.94739, -1.09672, -0.3721, 1.73338],
    "mixer": [-1.08882, 0.89718, 0.21938, -1.26951, 1.4233, -0.85208, -0.19756, 1.4157],
    "t2t": [-0.2111, 0.30957, 0.05668, -0.27828, 0.07599, 0.03716, 0.0188, 0.09188],
    "supervit": [-0.76071, 1.00969, -0.29059, -0.50071, 0.65835, -0.45086, 0.06684, 0.47059],
    "supervit lvvit": [0.46256, 0.04644, -0.45918, 0.2356, 0.28163, -0.46466, 0.45904, -0.03751],
    "vvt": [0.97144, 0.5237, -0.62544, -0.24042, 0.23622, -0.68609, -0.88985, 0.10222],
    "vvt product": [0.98571, 1.36909, 0.59806, -0.31298, -0.92979, -1.34383, -1.04695, -0.47374],
    "timesformer divided": [-0.3993, 0.49319, -0.03771, -0.24756, 0.04524, 0.07418, 0.04752, -0.07415],
    "timesformer joint": [-0.35299, 0.67559, -0.23546, -0.28971, 0.37287, -0.29817, 0.1168, 0.3139],
    "timesformer space": [-0.51593, 0.6743, -0.1227, -0.3904, 0.38191, -0.24234, 0.09065, 0.24841],
    "wetmapformer": [0.76464, 1.26901, 0.48138, -2.04032, -6.17382, -10.89525, -13.82123, -13.93283],
    "wetmapformer published": [5.90279, 7.87257, 8.34196, 7.24932, 4.68294, 1.18971, -1.48393, -2.70589],
}


@torch.no_grad()
def fill(network: nn.Module) -> None:
    """Fill every parameter with values of a sine, of about the size of trained ones."""
    for turn, (name, parameter) in enumerate(sorted(network.named_parameters())):
        places = torch.arange(parameter.numel(), dtype=torch.float64)
        wave = torch.sin(places * 1.7 + turn) * torch.cos(places * 0.31 + 0.1)
        fan = parameter[0].numel() if parameter.ndim > 1 else 25
        scale = wave.view(parameter.shape) * 1.5 / fan**0.5
        one = parameter.ndim == 1 and ("norm" in name or "gamma" in name) and "weight" in name
        parameter.copy_(scale + one)


@torch.no_grad()
def logits(name: str) -> torch.Tensor:
    config = CONFIGS[name]
    encoder = build(config).eval()
    kind = DenseHead if encoder.spec.dense else DistilledHead if "dist" in encoder.spec.prefix else LinearHead
    head = kind(encoder.spec, 8).eval()
    if config.family == "supervit":
        set_keep(encoder, 0.7)
    fill(encoder)
    fill(head)
    shape = encoder.spec.shape(
        (config.size[0], 2 * config.size[0])
    )  # twice as wide: positions are resized, too
    pixels = torch.arange(prod(shape), dtype=torch.float64).view(1, *shape)
    return head(encoder(torch.sin(pixels * 0.37).float()))["logits"][0]


def test_every_configuration_has_its_record():
    assert CONFIGS.keys() == RECORDED.keys()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_as_recorded(name):
    torch.testing.assert_close(logits(name), torch.tensor(RECORDED[name]), rtol=0, atol=5e-5)


if __name__ == "__main__":
    for name in CONFIGS:
        print(f"    {name!r}: {[round(value, 5) for value in logits(name).tolist()]},")
