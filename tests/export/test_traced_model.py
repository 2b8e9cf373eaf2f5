"""The graph's own resize, crop and pad give the numbers of the package's one preprocessing."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch import nn

from vitrail.data.preprocess import Preprocess
from vitrail.data.resize import INTERPOLATIONS
from vitrail.export.traced_model import Prepare, divided, plan
from vitrail.infer.openvino_backend import quietly
from vitrail.infer.runtimes import core

SIZES = [
    (1, 1),
    (17, 23),
    (23, 17),
    (32, 48),
    (48, 32),
    (61, 47),
    (73, 1),
    (375, 500),
    (601, 397),
    (1500, 997),
]
FITS = [
    ("squash", 1.0), ("squash", 0.9), ("crop", 0.875), ("crop", 1.0), ("crop", 0.6), ("pad", 1.0), ("pad", 0.7),
]  # fmt: skip


@pytest.mark.parametrize(("fit", "fraction"), FITS)
@pytest.mark.parametrize("size", [(32, 48), (56, 40), (224, 224)])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_matrix_products_equal_the_resize_to_a_ten_thousandth(fit, fraction, size, interpolation):
    steps = Preprocess(size, fit, fraction, interpolation=interpolation)
    prepare = Prepare(steps)
    draw = np.random.default_rng(0)
    for shape in SIZES:
        image = draw.integers(0, 256, (*shape, 3), dtype=np.uint8)
        wanted, _ = steps.eval(image)
        found = prepare(torch.from_numpy(image)[None])[0]
        apart = (wanted - found).abs() * torch.tensor(steps.std).view(-1, 1, 1)  # in parts of 255
        assert apart.max() < 1e-4, (shape, float(apart.max()))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_the_largest_photograph_agrees_too(interpolation):
    steps = Preprocess((64, 64), "crop", interpolation=interpolation)
    image = np.random.default_rng(1).integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
    wanted, _ = steps.eval(image)
    apart = (wanted - Prepare(steps)(torch.from_numpy(image)[None])[0]).abs().max() * 0.25
    assert apart < 1e-4


@pytest.mark.parametrize(("fit", "fraction"), FITS)
def test_sizes_and_corners_are_the_same_whole_numbers_everywhere(fit, fraction):
    """Halves are where integers and floats part; every shape up to 90 is asked."""
    for size in ((32, 32), (32, 48), (15, 7)):
        steps = Preprocess(size, fit, fraction)
        tall, wide = (
            t.flatten() for t in torch.meshgrid(torch.arange(1, 91), torch.arange(1, 91), indexing="ij")
        )
        down, across = plan(steps, tall, wide)
        for i, (height, width) in enumerate(zip(tall.tolist(), wide.tolist(), strict=True)):
            known = steps._plan(height, width)
            assert (int(down.new[i]), int(across.new[i])) == known.resized, (height, width)
            assert (int(down.corner[i]), int(across.corner[i])) == known.corner, (height, width)


class Planned(nn.Module):
    """The whole numbers of a plan for many sizes at once: (n,), (n,) -> (4, n)."""

    def __init__(self, steps: Preprocess) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, tall: torch.Tensor, wide: torch.Tensor) -> torch.Tensor:
        """Return the resized height and width and the two corners."""
        down, across = plan(self.steps, tall, wide)
        return torch.stack(
            [torch.broadcast_to(one, tall.shape) for axis in (down, across) for one in axis[:2]]
        )


def written(module: nn.Module, samples: tuple[torch.Tensor, ...], sides: tuple):
    """Return a module written as ONNX and read by OpenVINO."""
    with quietly(), torch.no_grad():
        program = torch.export.export(module.eval(), samples, dynamic_shapes=sides)
        onnx = torch.onnx.export(program, dynamo=True, opset_version=18, verbose=False)
    return core().read_model(io.BytesIO(onnx.model_proto.SerializeToString()))


def compiled(model, precision: str):
    """Return a model of OpenVINO in a precision as a function of arrays."""
    asked = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return lambda *arrays: asked(list(arrays))[0]


def allowed(model, precision: str) -> tuple[float, float]:
    """Return the bounds of the precision that OpenVINO takes when asked for this one: not every CPU has f16."""
    asked = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    taken = str(asked.get_property("INFERENCE_PRECISION_HINT"))
    return LOWER["bf16" if "bfloat16" in taken else "f16"]


FREE = torch.export.Dim.DYNAMIC
LOWER = {"bf16": (0.06, 0.012), "f16": (0.01, 0.002)}
"""How far inputs of deviation 1 may lie off in fewer bits: one pixel at most, and in the mean of squares."""


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_the_resize_holds_in_the_few_bits_that_a_runtime_may_choose(fit):
    steps = Preprocess((32, 48), fit)
    sides = ({0: FREE, 1: FREE, 2: FREE},)
    model = written(Prepare(steps), (torch.zeros(2, 61, 47, 3, dtype=torch.uint8),), sides)
    for precision in LOWER:
        asked, draw = compiled(model, precision), np.random.default_rng(0)
        most, mean = allowed(model, precision)
        for height, width in ((17, 23), (375, 500), (300, 1), (1500, 997), (40, 4000)):
            coarse = draw.integers(0, 256, (1 + height // 5, 1 + width // 5, 3), dtype=np.uint8)
            image = np.repeat(np.repeat(coarse, 5, 0), 5, 1)[:height, :width]
            apart = asked(image[None])[0] - steps.eval(image)[0].numpy()
            assert abs(apart).max() < most, (height, width)
            assert (apart**2).mean() ** 0.5 < mean, (height, width)


def test_raw_numbers_of_16_bits_hold_too():
    steps = Preprocess((32, 48), "pad", 1.0, (0.2,) * 5, (0.2,) * 5, 5, scale=65535)
    model = written(Prepare(steps), (torch.zeros(2, 61, 47, 5),), ({0: FREE, 1: FREE, 2: FREE},))
    draw = np.random.default_rng(0)
    image = np.kron(draw.integers(0, 65536, (40, 50, 5)), np.ones((5, 5, 1))).astype(np.float32)
    image[:9, :9] = np.nan
    wanted = torch.nan_to_num(steps.eval(image)[0]).numpy()
    for precision in LOWER:
        most, mean = allowed(model, precision)
        apart = compiled(model, precision)(image[None])[0] - wanted
        assert abs(apart).max() < most
        assert (apart**2).mean() ** 0.5 < mean


@pytest.mark.parametrize(("fit", "fraction"), [("crop", 0.875), ("pad", 0.7)])
def test_sizes_and_corners_are_whole_numbers_in_few_bits_too(fit, fraction):
    steps = Preprocess((224, 336), fit, fraction)
    tall, wide = torch.randint(1, 9000, (2, 2000), generator=torch.Generator().manual_seed(0))
    model = written(Planned(steps), (tall[:2], wide[:2]), ({0: torch.export.Dim("n")},) * 2)
    found = compiled(model, "bf16")(tall.numpy(), wide.numpy())
    plans = [steps._plan(height, width) for height, width in zip(tall.tolist(), wide.tolist(), strict=True)]
    known = np.array([[p.resized[0], p.corner[0], p.resized[1], p.corner[1]] for p in plans]).T
    assert (found == known).all()


def test_quotients_of_large_numbers_come_in_small_ones():
    a, b = torch.tensor([5, 123_456_789, 7, 999]), torch.tensor([7, 12_345, 7, 1000])
    whole, fraction = divided(a, b)
    assert (whole + fraction.double()).tolist() == pytest.approx((a.double() / b).tolist(), abs=1e-4)
    assert whole.tolist() == [0, 10_000, 1, 0]
    assert fraction.tolist() == pytest.approx((a.double() / b % 1).tolist(), abs=1e-7)
