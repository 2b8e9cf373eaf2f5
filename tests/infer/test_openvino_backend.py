"""A translated network answers as its original, is kept, and is never trusted for what the cache says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from vitrail.core.errors import SettingError
from vitrail.infer import (
    autotune,
    backend_cache,
    backend_check,
    backends,
    openvino_backend,
    quantize_int8,
    runtimes,
)
from vitrail.infer.autotune import choose_backend
from vitrail.infer.backend_cache import BackendCache
from vitrail.infer.backends import PLAIN, Backend, BackendNetwork, backends_for
from vitrail.infer.openvino_backend import Translated
from vitrail.infer.predictor import Predictor, Request
from vitrail.infer.quantize_int8 import Scales
from vitrail.infer.reparameterize import folded
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network, build_task
from vitrail.runs.proof import picture

FLOAT = Backend(engine="openvino")
INT8 = Backend("int8", engine="openvino")


@pytest.fixture(autouse=True)
def _installed():
    if find_spec("openvino") is None:  # found, not imported: its own reporting must not be loaded
        pytest.skip("pip install 'vitrail[export]'")


@pytest.fixture
def only(monkeypatch):
    """Let the machine have but these plans."""

    def choose(*found):
        monkeypatch.setattr(autotune, "backends_for", lambda network, device: [PLAIN, *found])
        monkeypatch.setattr(autotune, "eager_speeds", lambda *given: {PLAIN: 20.0})

    return choose


@pytest.fixture
def quick(monkeypatch):
    """Every way is as quick and as faithful as wanted: what is tested is the choice, not the machine."""
    monkeypatch.setattr(backend_check, "SAME_TOP", 0.0)
    monkeypatch.setattr(backend_check, "DRIFT", 1.0)
    monkeypatch.setattr(backend_check, "speed", lambda batches, times: 100.0)


def fresh(name, classes, image=None):
    task = build_task("classify", [*"abcdefgh"[:classes]], {})
    return build_network(create_encoder(name, image=image), task).eval()


def logits(network, images):
    return network({"images": images})["logits"]


@pytest.mark.parametrize("count", [1, 3, 70])
def test_it_answers_as_the_network_does(model, count):
    network = Predictor(model).network
    images = torch.randn(count, 3, 32, 32)
    found = BackendNetwork(network, FLOAT, (32, 3, 32, 32))({"images": images})
    torch.testing.assert_close(found, network({"images": images}), rtol=0, atol=1e-5)


def test_int8_is_near_and_not_equal(model):
    network = Predictor(model).network
    images = torch.randn(8, 3, 32, 32)
    twin = BackendNetwork(network, INT8, (8, 3, 32, 32), scales=Scales(lambda: torch.randn(8, 3, 32, 32)))
    found = logits(twin, images)
    apart = (logits(network, images) - found).abs().max() / found.std()
    assert 1e-4 < apart < 0.2


def test_large_queries_and_small_keys_are_as_near_as_even_ones(model):
    """What a trained network is free to do: the products, and so the attention, are the same."""
    network = Predictor(model).network
    images, others = torch.randn(2, 8, 3, 32, 32)
    found = []
    for size in (1, 300):
        scales = Scales(lambda: others)
        twin = BackendNetwork(_uneven(network, size), INT8, (8, 3, 32, 32), scales=scales)
        found.append((logits(network, images) - logits(twin, images)).pow(2).mean().sqrt())
        depth = len(network.encoder.blocks)
        assert sum(name.endswith("queries") for name in scales.known) == depth
    assert found[1] < 2 * found[0]


@pytest.mark.parametrize(("heads", "found"), [(4, 1), (1, 0)])
def test_queries_that_share_their_keys_are_left_alone(heads, found):
    openvino = runtimes.openvino()
    ops = openvino.opset13
    queries, keys = (ops.parameter([1, count, 5, 8], np.float32) for count in (4, heads))
    attention = ops.scaled_dot_product_attention(queries, keys, keys, causal=False)
    assert len(quantize_int8.attentions(openvino.Model([attention], [queries, keys]))) == found


def _uneven(network, size):
    """Return a twin, one of whose query channels a head is `size` times as large and its key as much smaller."""
    twin = deepcopy(network)
    for block in twin.encoder.blocks:
        qkv = block.attention.qkv
        width = qkv.in_features
        for part, factor in ((0, size), (1, 1 / size)):
            rows = slice(part * width, (part + 1) * width, width // block.attention.heads)
            qkv.weight[rows] *= factor
            qkv.bias[rows] *= factor
    return twin


def test_a_channel_hands_its_size_to_its_weights_with_the_same_product():
    draw = np.random.default_rng(0)
    sizes = np.array([0.0, 1e-3, 1, 50], dtype=np.float32)
    inputs = draw.normal(size=(30, 4)).astype(np.float32) * sizes
    weights = draw.normal(size=(5, 4)).astype(np.float32)
    found = quantize_int8._divisors(np.stack([inputs.min(0), inputs.max(0)]), weights, 0.6)
    np.testing.assert_allclose(
        (inputs / found) @ (weights * found).T, inputs @ weights.T, rtol=1e-4, atol=1e-5
    )
    spans = [np.ptp(one, 0)[1:] for one in (inputs, inputs / found)]
    assert np.ptp(np.log(spans[1])) < np.ptp(np.log(spans[0])) / 2


@pytest.mark.parametrize(("low", "high"), [(-0.17, 3.9), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)])
def test_zero_is_among_the_numbers_of_a_range(low, high):
    least, most = quantize_int8._even(np.array([[low], [high]], dtype=np.float32))
    step = (most - least) / 255
    assert least / step == pytest.approx(round(float(least / step)), abs=1e-3)
    assert least <= min(low, 0) + step
    assert most >= max(high, 0) - step


def test_int8_without_scales_or_layers_says_so(model):
    with pytest.raises(SettingError, match="is calibrated on images"):
        Translated(Predictor(model).network, (8, 3, 32, 32), "int8")
    convolutions = fresh("resnet10t", 3, (32, 32))
    with pytest.raises(SettingError, match="no linear layer"):
        Translated(convolutions, (8, 3, 32, 32), "int8", scales=Scales(lambda: torch.zeros(1, 3, 32, 32)))


def favour(model, plan):
    """Let the memory of a model hold a plan for far quicker than all others."""
    memory = BackendCache(Predictor(model))
    memory.keep(plan, replace(memory.seen[plan], speed=9000.0, setup=0.0, same_top=1.0, drift=0.0))


def same_as_plain(model, predictor, request, apart=1e-5):
    assert isinstance(request.backend, BackendNetwork)
    found, wanted = predictor.predict(picture(), request)[0], Predictor(model)(picture())[0]
    return found.probability == pytest.approx(wanted.probability, abs=apart)


def never(count):
    raise AssertionError("nothing was to be proven")


def test_what_was_translated_is_opened_again_and_damage_is_seen(model, shown, only, quick, monkeypatch):
    only(FLOAT)
    made = []
    honest = openvino_backend.translate
    monkeypatch.setattr(openvino_backend, "translate", lambda *given: made.append(1) or honest(*given))
    choice = choose_backend(Predictor(model), 10_000_000, lambda count: shown)
    assert choice.plan == PLAIN  # no quicker
    assert len(made) == 1
    favour(model, FLOAT)
    again = Predictor(model)
    choice = choose_backend(again, 1000, never)
    assert choice.plan == FLOAT
    assert same_as_plain(model, again, choice.request)
    assert len(made) == 1
    weights = next(backend_cache.translation_path(again, again.point).glob("*.bin"))
    weights.write_bytes(bytes(len(weights.read_bytes())))  # all zero
    mended = Predictor(model)
    choose_backend(mended, 10_000_000, lambda count: shown)  # proven anew, with a translation of its own
    assert len(made) == 2
    favour(model, FLOAT)
    choice = choose_backend(mended, 1000, never)
    assert choice.plan == FLOAT
    assert same_as_plain(model, mended, choice.request)
    next(backend_cache.translation_path(again, again.point).glob("*.xml")).write_text("no graph")
    assert choose_backend(Predictor(model), 1000, never).plan == FLOAT
    assert len(made) == 3


def test_int8_is_remembered_with_what_it_learnt(model, shown, only, quick):
    only(INT8)
    choose_backend(Predictor(model), 10_000_000, lambda count: shown)
    seen = BackendCache(Predictor(model)).seen[INT8]
    assert not seen.failed
    assert seen.drift > 0
    assert (seen.pictures, len(seen.answer)) == (33, 3)
    favour(model, INT8)
    again = Predictor(model)
    choice = choose_backend(again, 1000, never)
    assert choice.plan == INT8
    assert same_as_plain(model, again, choice.request, 0.05)
    shutil.rmtree(
        backend_cache.translation_path(again, again.point)
    )  # others were used since: translated again, with the same scales
    assert choose_backend(Predictor(model), 1000, never).plan == INT8
    memory = BackendCache(again)
    for broken in (b"nothing", save({"another": np.zeros((2, 3), np.float32)})):
        memory.scales.write_bytes(broken)
        choose_backend(Predictor(model), 10_000_000, lambda count: shown)  # other scales want another proof
        favour(model, INT8)
        assert choose_backend(Predictor(model), 1000, never).plan == INT8


def test_a_cache_that_may_not_be_touched_still_serves(model, shown, only, quick, monkeypatch):
    only(INT8)
    choose_backend(Predictor(model), 10_000_000, lambda count: shown)
    favour(model, INT8)

    def denied(*given, **more):
        raise PermissionError("read-only")

    monkeypatch.setattr(openvino_backend.os, "utime", denied)
    assert choose_backend(Predictor(model), 1000, never).plan == INT8


def test_models_that_are_gone_leave_no_trap_for_signals():
    """Plugins of OpenVINO that were unloaded left a stack for signal handlers behind that was there no more."""
    script = """
import signal, subprocess, sys, torch
from vitrail.infer.openvino_backend import Translated
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_task, build_network
network = build_network(create_encoder("vit_digits"), build_task("classify", ["a", "b", "c"], {})).eval()
some = [Translated(network, (2, 3, 32, 32), "float32") for _ in range(2)]
some = [(one, one(torch.zeros(2, 3, 32, 32)))[0] for one in some]
while some:
    some.pop(0)
heard = []
signal.signal(signal.SIGCHLD, lambda *given: heard.append(1))
subprocess.run([sys.executable, "-c", ""], check=True)
print(len(heard))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_old_translations_make_room(tmp_path, monkeypatch):
    monkeypatch.setattr(openvino_backend, "KEPT", 2)
    network = fresh("vit_digits", 3)
    kept = [tmp_path / f"{i}.openvino" for i in range(openvino_backend.KEPT + 2)]
    for one in kept:
        openvino_backend.Translated(network, (2, 3, 32, 32), "float32", one)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted(one.name for one in kept[2:])


def test_an_engine_that_refuses_a_network_is_said_and_left_out(model, shown, only, monkeypatch):
    only(FLOAT)

    def refuse(network, shape):
        raise NotImplementedError("no such operation")

    monkeypatch.setattr(openvino_backend, "translate", refuse)
    predictor = Predictor(model)
    choice = choose_backend(predictor, 10_000_000, lambda count: shown)
    assert choice.plan == PLAIN
    assert "through OpenVINO (cannot run this network: NotImplementedError)" in choice.why
    assert choice.request == Request(predictor.point)


def test_pictures_that_come_one_by_one_have_a_memory_of_their_own(model, shown, only, quick):
    only(INT8)
    choose_backend(Predictor(model), 10_000_000, lambda count: shown, singly=True)
    assert not BackendCache(Predictor(model), singly=True).seen[INT8].failed
    assert BackendCache(Predictor(model)).seen == {}


def test_without_openvino_nothing_of_it_is_planned(model, monkeypatch):
    predictor = Predictor(model)
    assert FLOAT.engine in {plan.engine for plan in backends_for(predictor.network, predictor.device)}
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert FLOAT.engine not in {plan.engine for plan in backends_for(predictor.network, predictor.device)}


def trained_a_little(name):
    """A network with statistics in its norms: fresh ones fold to nothing."""
    torch.manual_seed(0)
    network = fresh(name, 5, (64, 64)).requires_grad_(False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return network


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s0", "repvit_m0_9", "fastvit_t8"])
def test_branches_are_folded_and_nothing_changes(name):
    network = trained_a_little(name)
    twin = folded(network)
    assert twin is not network
    assert sum(1 for _ in twin.modules()) < sum(1 for _ in network.modules())
    images = torch.randn(2, 3, 64, 64)
    wanted = logits(network, images)
    torch.testing.assert_close(
        logits(twin, images), wanted, rtol=0, atol=1e-4 * max(1.0, float(wanted.abs().max()))
    )


def test_what_folds_wrongly_or_not_at_all_stays(monkeypatch):
    import timm.utils.model

    plain = fresh("resnet10t", 5, (32, 32))
    assert folded(plain) is plain
    ours = fresh("vit_digits", 5)
    assert folded(ours) is ours
    network = trained_a_little("repvgg_a0")
    assert folded(network) is not network
    honest = timm.utils.model.reparameterize_model

    def bent(net, inplace):
        net = honest(net, inplace=inplace)
        for parameter in net.parameters():
            parameter.data.mul_(1.1)
        return net

    monkeypatch.setattr(timm.utils.model, "reparameterize_model", bent)
    assert folded(network) is network


def test_the_quick_way_through_openvino_opens_no_socket(model, tmp_path):
    """Translating loads more of OpenVINO than opening does; a child process counts every connection it tries."""
    script = (
        "import sys\n"
        "tried = []\n"
        "watched = ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.sendto')\n"
        "sys.addaudithook(lambda name, given: tried.append(name) if name in watched else None)\n"
        "import socket, time, torch\n"
        "from vitrail.infer.backends import Backend, BackendNetwork\n"
        "from vitrail.infer.predictor import Predictor\n"
        f"network = Predictor({str(model)!r}).network\n"
        "BackendNetwork(network, Backend(engine='openvino'), (2, 3, 32, 32))({'images': torch.zeros(2, 3, 32, 32)})\n"
        "time.sleep(1)\n"
        "found = list(tried)\n"
        "socket.getaddrinfo('localhost', 1)\n"  # the watch itself is awake
        "print(found, len(tried) > len(found), 'openvino_telemetry' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200)
    assert done.stdout.strip().splitlines()[-1] == "[] True False", done.stderr


def test_a_cache_that_cannot_be_written_still_lets_int8_answer(model, shown, only, tmp_path, monkeypatch):
    only(INT8)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "file"))
    speeds = iter([0.01, 9000.0])
    monkeypatch.setattr(backend_check, "speed", lambda batches, times: next(speeds))
    monkeypatch.setattr(backend_check, "SAME_TOP", 0.0)
    predictor = Predictor(model)
    choice = choose_backend(predictor, 10_000_000, lambda count: shown)
    assert choice.plan == INT8
    assert len(predictor.predict([shown[0]], choice.request)) == 1
    with pytest.raises(AssertionError, match="nothing was to be proven"):  # the next job knows nothing
        choose_backend(Predictor(model), 10_000_000, never)


def test_what_may_be_gone_tomorrow_is_not_remembered(model, shown, only, quick, monkeypatch):
    only(FLOAT)

    def full(network, shape):
        raise OSError("no space left")

    monkeypatch.setattr(openvino_backend, "translate", full)
    choice = choose_backend(Predictor(model), 10_000_000, lambda count: shown)
    assert (choice.plan, "OSError" in choice.why) == (PLAIN, True)
    assert FLOAT not in BackendCache(Predictor(model)).seen
