"""What answers wrongly in bf16 on this machine stays in float32, in every copy of a network, and is said."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from vitrail.infer import bf16_check
from vitrail.infer.backends import Backend, BackendNetwork
from vitrail.infer.bf16_check import Bf16Check, check_bf16, keep_in_float32, noise
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network, build_task


class Wrong(nn.Conv2d):
    """A convolution that answers garbage in bf16 and is right backward, on any machine, as some are with AMX."""

    def forward(self, x):
        exact = super().forward(x)
        rounds = x.dtype == torch.bfloat16 or torch.is_autocast_enabled(x.device.type)
        return exact + (exact.flip(1) - exact).detach() if rounds else exact


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bf16"


@pytest.fixture(autouse=True)
def one_thread():
    """Small images gain nothing from more, and lose much where others want the cores, too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def broken(network, name):
    """Put a wrong convolution, of the same weights, in the place of a right one."""
    module = network.get_submodule(name)
    module.__class__ = Wrong
    return network


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return broken(create_encoder("resnet10t", image=32).train(), "net.conv1.0")


IMAGES = noise((3, 32, 32), torch.device("cpu"))


@torch.no_grad()
def off(found, wanted):
    return float((found.float() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


def rounded(network, images=IMAGES):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return network(images)


def test_a_wrong_convolution_is_found_once_and_named(encoder, cache, monkeypatch):
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    check = check_bf16(encoder, IMAGES)
    assert check.float32 == ("net.conv1.0",)
    assert check.faithful
    assert check.off < 0.1
    assert "1 convolution is wrong in bf16" in check.lines()[0]
    assert "net.conv1.0" in check.lines()[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert all(module.training for module in encoder.modules())
    assert not any(module._forward_hooks or "forward" in vars(module) for module in encoder.modules())
    monkeypatch.setattr(
        bf16_check, "compare_with_float32", lambda *given: pytest.fail("it was compared before")
    )
    assert check_bf16(encoder, IMAGES) == check


def test_another_shape_or_a_broken_memory_is_compared_again(encoder, cache, monkeypatch):
    check = check_bf16(encoder, IMAGES)
    [file] = cache.iterdir()
    file.write_text("broken")
    assert check_bf16(encoder, IMAGES) == check
    check_bf16(encoder, noise((3, 64, 32), torch.device("cpu")))
    assert len(list(cache.iterdir())) == 2


def test_the_convolutions_alone_stay_in_float32_in_every_copy(encoder):
    encoder.eval()
    names = [*encoder.state_dict()]
    exact = encoder(IMAGES).pooled
    garbage = rounded(encoder).pooled
    keep_in_float32(encoder, ["net.conv1.0"])
    assert [*encoder.state_dict()] == names
    assert torch.equal(encoder(IMAGES).pooled, exact)
    for network in (encoder, deepcopy(encoder), torch.compile(encoder, backend="eager")):
        assert off(rounded(network).pooled, exact) < 0.05 < off(garbage, exact)
    twin = deepcopy(encoder)
    with torch.no_grad():
        twin.get_parameter("net.conv1.0.weight").zero_()  # a copy has weights of its own
    assert off(rounded(twin).pooled, exact) > 0.05
    assert twin.get_submodule("net.conv1.0")(torch.ones(1, 3, 3, 3)).dtype == torch.float32
    keep_in_float32(encoder, [])
    assert torch.equal(rounded(encoder).pooled, garbage)


def test_a_network_that_is_wrong_without_a_wrong_convolution_is_told():
    class Forgets(nn.Module):
        def forward(self, x):
            return x.flip(-1) if torch.is_autocast_enabled("cpu") else x

    check = check_bf16(nn.Sequential(nn.Conv2d(3, 5, 3), Forgets()), IMAGES)
    assert (check.float32, check.faithful) == ((), False)
    assert "Computed in float32" in check.lines()[0]


@pytest.mark.parametrize("last", [False, True])
def test_a_quick_twin_keeps_them_in_float32_and_says_so(last):
    torch.manual_seed(0)
    whole = build_network(create_encoder("resnet10t"), build_task("classify", list("abcdefg"), {})).eval()
    network = broken(whole, "encoder.net.conv1.0").requires_grad_(False)
    torch.nn.init.normal_(network.head.linear.weight)
    inputs = {"images": torch.randn(8, 3, 32, 32)}
    quick = BackendNetwork(network, Backend("bf16", last), (8, 3, 32, 32))
    assert off(quick(inputs)["logits"], network(inputs)["logits"]) < 0.1
    assert "net.conv1.0" in quick.kept_in_float32()[0]
    assert BackendNetwork(network, Backend("float32", last), (8, 3, 32, 32)).kept_in_float32() == []
    assert not any("forward" in vars(module) for module in network.modules())


def test_nothing_is_said_of_a_network_that_agrees():
    assert Bf16Check(off=0.01).lines() == []
