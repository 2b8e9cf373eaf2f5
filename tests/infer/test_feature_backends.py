"""The features of a frozen network come from the fastest backend that agrees with float32."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vitrail.infer import feature_backends
from vitrail.infer.backends import PLAIN, Backend, BackendNetwork
from vitrail.infer.feature_backends import FeatureBackends, FeatureSpeed, feature_network
from vitrail.layers.pooling import Pool
from vitrail.models.factory import create_encoder

CPU = torch.device("cpu")
BF16, THROUGH = Backend("bf16"), Backend("bf16", engine="openvino")


@pytest.fixture
def machine(monkeypatch):
    """A machine with fast bf16 and an engine, on which nothing of the processor matters."""
    monkeypatch.setattr(feature_backends, "fast_bf16", lambda device: True)
    monkeypatch.setattr(feature_backends, "backends_for", lambda network, device: [PLAIN, BF16, THROUGH])


def backends_of(tmp_path, name="vit_digits", image=(32, 32)):
    torch.manual_seed(0)
    encoder = create_encoder(name, image=image).eval()
    network = feature_network(encoder, Pool(encoder.spec, encoder.spec.pool))
    return FeatureBackends(network, (8, 3, *image), CPU, tmp_path / "speeds.json")


def images():
    return torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def never():
    raise AssertionError("nothing was to be measured")


def missing(found, count):
    return dict.fromkeys(found.plans, count)


def test_a_short_job_measures_nothing_and_a_longer_one_does_it_once(machine, tmp_path):
    found = backends_of(tmp_path)
    assert found.choose(missing(found, 20), never) == BF16
    found.choose(missing(found, 200), images)
    assert set(found.seen) == {BF16, PLAIN}, "an engine with a long setup does not pay for 200 images"
    assert found.seen[PLAIN].off == 0
    assert 0 < found.seen[BF16].off < feature_backends.FEATURES_OFF
    again = backends_of(tmp_path)
    assert again.seen == found.seen
    again.choose(missing(again, 200), never)


def test_the_fastest_for_the_job_is_taken_with_what_is_cached(machine, tmp_path):
    found = backends_of(tmp_path)
    found.seen = {
        PLAIN: FeatureSpeed(20.0, 0.0, 0.0),
        BF16: FeatureSpeed(60.0, 0.0, 0.01),
        THROUGH: FeatureSpeed(110.0, 9.0, 0.01),
    }
    assert found.choose(missing(found, 1_000), never) == BF16
    assert found.choose(missing(found, 10_000), never) == THROUGH
    assert found.choose({PLAIN: 0, BF16: 1_000, THROUGH: 1_000}, never) == PLAIN, "everything is cached"
    assert found.choose({PLAIN: 9_000, BF16: 900, THROUGH: 9_000}, never) == BF16
    found.seen[THROUGH] = found.seen[THROUGH]._replace(off=0.3)
    assert found.choose(missing(found, 10_000), never) == BF16, "it does not agree with float32"


def test_features_that_do_not_agree_are_never_used(machine, tmp_path, monkeypatch):
    honest = BackendNetwork.forward

    def mirrored(self, inputs):
        given = inputs["images"].flip(-1) if self.plan.precision == "bf16" else inputs["images"]
        return honest(self, {"images": given})

    monkeypatch.setattr(BackendNetwork, "forward", mirrored)
    found = backends_of(tmp_path)
    assert found.choose(missing(found, 200), images) == PLAIN
    assert found.seen[BF16].off > 1


def test_an_engine_that_fails_is_left_out(machine, tmp_path, monkeypatch):
    found = backends_of(tmp_path)
    honest = BackendNetwork.__init__

    def refuse(self, network, plan, *more):
        if plan == THROUGH:
            raise NotImplementedError("no such operation")
        honest(self, network, plan, *more)

    monkeypatch.setattr(BackendNetwork, "__init__", refuse)
    assert found.choose(missing(found, 10_000_000), images) in {PLAIN, BF16}
    assert not found.seen[THROUGH].faithful


def test_convolutions_are_measured_in_both_memory_formats_and_give_the_same(machine, tmp_path):
    found = backends_of(tmp_path, "resnet10t", (64, 64))
    four = {Backend(precision, last) for precision in ("float32", "bf16") for last in (False, True)}
    assert four <= set(found.plans)
    pixels = torch.randn(8, 3, 64, 64)
    found.choose(missing(found, 200), lambda: pixels)
    assert four <= set(found.seen)
    with torch.inference_mode():
        exact = found.network_of(PLAIN)({"images": pixels})["vectors"]
        last = found.network_of(replace(PLAIN, channels_last=True))({"images": pixels})["vectors"]
    torch.testing.assert_close(last, exact, rtol=1e-4, atol=1e-5)


def test_images_of_different_sizes_take_the_usual_backend_unmeasured(machine, tmp_path):
    torch.manual_seed(0)
    encoder = create_encoder("vit_digits", image=(32, 32)).eval()
    network = feature_network(encoder, None)
    found = FeatureBackends(network, (8, 3, 32, 32), CPU, tmp_path / "speeds.json", fixed=False)
    assert found.choose(missing(found, 10_000), never) == BF16
    assert THROUGH not in found.plans


def test_few_new_images_are_computed_as_those_in_the_cache(machine, tmp_path):
    found = backends_of(tmp_path)
    assert found.choose({PLAIN: 10, BF16: 1_010, THROUGH: 1_010}, never) == PLAIN


def test_only_the_chosen_network_stays_in_memory(machine, tmp_path):
    found = backends_of(tmp_path)
    plan = found.choose(missing(found, 200), images)
    kept = found.network_of(plan)
    assert found.network_of(plan) is kept
    assert found.network_of(PLAIN) is found.network
