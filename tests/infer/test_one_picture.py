"""One picture costs torch and the network: nothing else that is slow to import is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from PIL import Image

from vitrail.infer.predictor import Predictor
from vitrail.layers.weight_init import ZerosForRandom
from vitrail.models.factory import create_encoder

UNNEEDED = (
    "accelerate", "huggingface_hub", "matplotlib", "openvino", "pandas", "polars", "scipy", "sklearn", "sympy",
    "timm", "torch._dynamo", "torch._inductor", "torch.utils.flop_counter", "torchvision", "transformers",
    "vitrail.evaluate", "vitrail.explainers", "vitrail.export", "vitrail.infer.autotune", "vitrail.infer.backends",
    "vitrail.reports", "vitrail.studies", "vitrail.training", "vitrail.weights",
)  # fmt: skip

COMMAND = "from vitrail.cli.main import run; assert run(['predict', *sys.argv[1:]]) == 0"
PYTHON = "import vitrail; assert len(vitrail.load(sys.argv[1])(sys.argv[2])) == 1"


@pytest.mark.parametrize("work", [COMMAND, PYTHON])
def test_one_picture_imports_nothing_that_it_does_not_need(work, model, shown, tmp_path):
    Image.fromarray(shown[0]).save(tmp_path / "one.png")
    script = (
        f"import sys\n{work}\nprint([name for name in {UNNEEDED!r} if name in sys.modules], file=sys.stderr)"
    )
    words = [sys.executable, "-c", script, str(model), str(tmp_path / "one.png")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_a_model_is_opened_without_random_numbers(model):
    before = torch.get_rng_state()
    assert Predictor(model).proof_drift < 1e-6
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["swin_t", "t2t_vit_7"])
def test_computed_buffers_are_those_of_a_random_network(name):
    usual = create_encoder(name)
    before = torch.get_rng_state()
    with ZerosForRandom():
        zeros = create_encoder(name)
    assert torch.equal(torch.get_rng_state(), before)
    computed = dict(usual.named_buffers())
    assert computed.keys() == dict(zeros.named_buffers()).keys()
    stored = usual.state_dict()
    for key, buffer in zeros.named_buffers():
        assert key in stored or torch.equal(buffer, computed[key])
    assert any(not weight.any() for weight in zeros.parameters())


def test_no_lazily_loaded_name_is_that_of_a_module_of_plots():
    """Importing the module would put it in the place of the function."""
    from pkgutil import iter_modules

    from vitrail import plots

    modules = {one.name for one in iter_modules(plots.__path__)}
    assert not modules & set(plots.__all__)
    assert all(callable(getattr(plots, name)) for name in ("intervals", "curves", "Bar", "fan"))
