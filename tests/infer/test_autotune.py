"""A quicker way is used where it pays and was proven, and not otherwise."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters

from vitrail.core.environment import compiler
from vitrail.infer import autotune, backend_check, backend_costs
from vitrail.infer import backends as plans_page
from vitrail.infer.autotune import allowed, choose_backend, eager_speeds, speed_up
from vitrail.infer.backend_cache import BackendCache
from vitrail.infer.backend_check import BackendResult, Shown
from vitrail.infer.backend_costs import Job, proof_size
from vitrail.infer.backends import PLAIN, Backend, BackendNetwork
from vitrail.infer.inputs import Source
from vitrail.infer.predictor import Predictor, Request
from vitrail.infer.prefetch import prefetch, read_then_compute
from vitrail.infer.proof_images import spread
from vitrail.runs.network import build_task
from vitrail.runs.proof import picture

BF16 = Backend("bf16")


@pytest.fixture
def plans(monkeypatch):
    """Machines differ in what is worth asking; these are asked on all of them."""
    monkeypatch.setattr(autotune, "backends_for", lambda network, device: [PLAIN, BF16])
    monkeypatch.setattr(autotune, "eager_speeds", lambda *given: {PLAIN: 20.0, BF16: 600.0})


def never(count):
    raise AssertionError("nothing was to be proven")


def test_a_short_job_pays_for_no_proof(model, plans):
    predictor = Predictor(model)
    choice = choose_backend(predictor, 3, never)
    assert choice.plan == PLAIN
    assert choice.request == Request(predictor.point)


def test_a_long_job_is_proven_once_and_remembered(model, plans, shown, monkeypatch):
    monkeypatch.setattr(backend_check, "speed", lambda batches, times: 100.0)
    predictor = Predictor(model)
    choose_backend(predictor, 100_000, lambda count: shown)
    seen = BackendCache(predictor).seen
    assert seen[BF16].pictures == len(shown) - len(
        shown[:: backend_check.EVERY]
    )  # int8 would learn from those
    assert 0 < seen[BF16].drift < backend_check.DRIFT
    assert seen[PLAIN].drift == 0
    BackendCache(predictor).keep(BF16, replace(seen[BF16], speed=900.0, setup=0.0, same_top=1.0))
    again = Predictor(model)
    choice = choose_backend(again, 3, never)
    assert choice.plan == BF16
    assert "as in float32" in choice.why
    assert isinstance(choice.request.backend, BackendNetwork)
    plain = Predictor(model)(picture())[0]
    quick = again.predict(picture(), choice.request)[0]
    assert quick.label == plain.label
    assert quick.probability == pytest.approx(plain.probability, abs=backend_check.DRIFT)
    assert quick.probabilities != plain.probabilities
    assert again(picture())[0].probabilities == plain.probabilities


def test_a_plan_that_answers_otherwise_is_never_used(model, plans, shown, monkeypatch):
    honest = BackendNetwork.forward

    def flipped(self, inputs):
        return {name: tensor.flip(-1) for name, tensor in honest(self, inputs).items()}

    monkeypatch.setattr(BackendNetwork, "forward", flipped)
    predictor = Predictor(model)
    choice = choose_backend(predictor, 1_000_000, lambda count: shown)
    assert choice.plan == PLAIN
    assert "Not used: bf16" in choice.why
    assert choice.request == Request(predictor.point)
    assert choose_backend(predictor, 1_000_000, never).plan == PLAIN


def test_a_plan_that_answers_to_nothing_is_not_used_however_near_the_probabilities_are(
    model, plans, shown, monkeypatch
):
    """A network that has learned little gives all images about one answer, and garbage the same."""
    predictor = Predictor(model)
    with torch.no_grad():
        predictor.network.head.linear.weight.mul_(1e-3)
        predictor.network.head.linear.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    honest = BackendNetwork.forward
    mirrored = lambda self, inputs: honest(self, {"images": inputs["images"].flip(-1)})  # noqa: E731
    monkeypatch.setattr(BackendNetwork, "forward", mirrored)
    choice = choose_backend(predictor, 1_000_000, lambda count: shown)
    seen = BackendCache(predictor).seen[BF16]
    assert (seen.same_top, seen.drift < 0.01) == (1.0, True)
    assert choice.plan == PLAIN
    assert "of the difference between images" in choice.why


def test_a_plan_says_which_convolutions_stay_in_float32(model, plans, shown, monkeypatch):
    monkeypatch.setattr(backend_check, "speed", lambda batches, times: 100.0)
    monkeypatch.setattr(BackendNetwork, "kept_in_float32", lambda self: ["1 convolution …"])
    predictor = Predictor(model)
    choose_backend(predictor, 100_000, lambda count: shown)
    memory = BackendCache(predictor)
    memory.keep(BF16, replace(memory.seen[BF16], speed=900.0, setup=0.0, same_top=1.0))
    assert choose_backend(Predictor(model), 3, never).why.endswith("1 convolution …")


def test_a_model_alone_is_proven_on_the_pictures_of_the_job(model, plans, shown, tmp_path, monkeypatch):
    from PIL import Image

    sources = []
    for i, image in enumerate(shown[:5]):
        path = tmp_path / f"{i}.png"
        Image.fromarray(image).save(path)
        sources.append(Source(path.name, path))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    predictor = Predictor(model)
    choice = speed_up(predictor, model, [Source("broken.png", broken), *sources] * 300)
    assert BackendCache(predictor).seen[BF16].pictures > 5
    answers = list(predictor.answers([Source("broken.png", broken), *sources], request=choice.request))
    assert [bool(one.error) for one in answers] == [True, *[False] * 5]


def test_a_broken_memory_is_measured_again(model, plans, shown):
    predictor = Predictor(model)
    memory = BackendCache(predictor)
    memory.path.parent.mkdir(parents=True)
    memory.path.write_text(json.dumps([{"plan": {"speed": 1}}]))
    assert BackendCache(predictor).seen == {}


def test_the_last_batch_of_a_compiled_plan_is_filled_up(model, monkeypatch):
    sizes = []

    def remembered(network):
        return lambda images: (sizes.append(len(images)), network(images))[1]

    monkeypatch.setattr(plans_page, "compiled", remembered)
    predictor = Predictor(model)
    images = torch.randn(3, 3, 32, 32)
    out = BackendNetwork(predictor.network, Backend(engine="compiled"), (8, 3, 32, 32))({"images": images})
    torch.testing.assert_close(out, predictor.network({"images": images}), rtol=0, atol=1e-5)
    assert sizes == [8]


@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")
def test_a_compiled_plan_answers_as_the_network_does(model):
    predictor = Predictor(model)
    images = torch.randn(3, 3, 32, 32)
    out = BackendNetwork(predictor.network, Backend(engine="compiled"), (4, 3, 32, 32))({"images": images})
    torch.testing.assert_close(out, predictor.network({"images": images}), rtol=0, atol=1e-4)


@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")
def test_one_network_does_not_use_up_the_compilations_of_another():
    """A model with many operating points has more networks than torch compiles of one function by default."""
    images = torch.randn(2, 3)
    before = counters["stats"]["unique_graphs"]
    with torch._dynamo.config.patch(recompile_limit=1), torch.no_grad():
        for width in (2, 5, 7):
            network = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.ReLU()).eval()
            torch.testing.assert_close(plans_page.compiled(network)(images), network(images))
    assert counters["stats"]["unique_graphs"] == before + 3


def test_a_cache_that_cannot_be_written_costs_no_answer(model, plans, shown, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(backend_check, "speed", lambda batches, times: 100.0)
    predictor = Predictor(model)
    choice = choose_backend(predictor, 1_000_000, lambda count: shown)
    assert choice.plan in {PLAIN, BF16}
    assert len(predictor.predict([shown[0]], choice.request)) == 1


def test_several_labels_are_the_same_answer_when_each_is():
    task = build_task("multilabel", ["a", "b", "c"], {"thresholds": [0.5, 0.3, 0.9]})
    p = torch.tensor([[0.52, 0.1, 0.1], [0.99, 0.1, 0.98], [0.2, 0.31, 0.1]])
    q = torch.tensor([[0.48, 0.1, 0.1], [0.98, 0.1, 0.99], [0.2, 0.33, 0.1]])
    one, other = ({"logits": probabilities.logit()} for probabilities in (p, q))
    assert task.agree(one, other).tolist() == [False, True, True]


def test_what_teaches_int8_proves_nothing(model, shown):
    asked = []
    predictor = Predictor(model)
    found = Shown(predictor, predictor.point, lambda: asked.append(1) or shown, 16)
    learnt, proven = found.learnt(), torch.cat(found.batches)
    assert (len(learnt), len(proven)) == (7, 33)
    assert not {one.numpy().tobytes() for one in learnt} & {one.numpy().tobytes() for one in proven}
    assert torch.cat([output["logits"] for output in found.wanted()]).shape == (33, 3)
    assert asked == [1]
    alone = Shown(predictor, predictor.point, lambda: shown[:1], 16)
    assert len(alone.learnt()) == len(alone.batches[0]) == 1


def test_proof_pictures_come_from_everywhere():
    assert spread([*range(10)], 4) == [0, 2, 5, 7]
    assert spread([1, 2], 4) == [1, 2]
    assert spread([1, 2], 0) == []


def test_a_slow_network_is_worth_a_proof_sooner(model, monkeypatch):
    """A job of 1,000 images is short for a quick network and long for a slow one: one small batch tells."""
    predictor = Predictor(model)
    memory, quick = BackendCache(predictor), Backend("bf16", engine="openvino")
    for seconds, plan in ((0.001, PLAIN), (100.0, quick)):
        monkeypatch.setattr(autotune, "timed", lambda *given, took=seconds: (None, took))
        speeds = eager_speeds(predictor, memory, [PLAIN, quick], 1000)
        assert speeds == {PLAIN: 4 / seconds}
        assert min((PLAIN, quick), key=Job(1000, {}, speeds).seconds) == plan
    assert eager_speeds(predictor, memory, [PLAIN], 8) == {}, "a short job times nothing"


def seen(speed, **more):
    return BackendResult(speed, 1.0, 1.0, 0.001, 200, wanted=backend_check.PROOF_IMAGES, **more)


@pytest.mark.parametrize(("unit", "checked"), [("amx_bf16", False), ("avx512_bf16", True)])
def test_int8_waits_for_what_is_more_exact_and_has_to_be_clearly_faster(unit, checked, monkeypatch):
    """On a CPU whose bf16 products are as fast as int8's, the check of int8 is never paid for, or int8 not taken."""
    through, int8 = Backend("bf16", engine="openvino"), Backend("int8", engine="openvino")
    plans, timed = [PLAIN, BF16, through, int8], {PLAIN: 20.0, BF16: 60.0}
    monkeypatch.setattr(backend_costs, "bf16_unit", lambda device: unit)
    first = Job(20_000, {}, timed)
    assert allowed(plans, first) == [PLAIN, BF16, through]
    assert min(allowed(plans, first), key=first.seconds) == through
    measured = {PLAIN: seen(20.0), through: seen(110.0)}
    assert min(plans, key=Job(2_000, measured, timed).seconds) == through, (
        "int8 would save too little to check it"
    )
    longer = Job(20_000, measured, timed)
    assert min(allowed(plans, longer), key=longer.seconds) == (int8 if checked else through)
    for speed, chosen in ((92.0, through), (115.0, through), (150.0, int8)):
        both = Job(20_000, {**measured, int8: seen(speed)}, timed)
        assert min(plans, key=both.seconds) == chosen


def test_the_check_is_as_large_as_the_job_deserves(model, plans, shown, monkeypatch):
    assert [proof_size(count) for count in (3, 400, 10_000)] == [48, 100, backend_check.PROOF_IMAGES]
    monkeypatch.setattr(backend_check, "speed", lambda batches, times: 100.0)
    asked = []
    predictor = Predictor(model)
    choose_backend(predictor, 400, lambda count: asked.append(count) or shown)
    assert asked == [100]
    assert BackendCache(predictor).seen[BF16].wanted == 100
    choose_backend(predictor, 300, never)  # deserves less
    choose_backend(predictor, 100_000, lambda count: asked.append(count) or shown)
    assert asked == [100, backend_check.PROOF_IMAGES]


def test_a_backend_without_a_kernel_stops_no_job_and_is_not_tried_again(model, shown, monkeypatch):
    monkeypatch.setattr(autotune, "backends_for", lambda network, device: [PLAIN, BF16])
    honest, calls = BackendNetwork.forward, []

    def refuse(self, inputs):
        calls.append(1)
        if self.plan == BF16:
            raise RuntimeError("not implemented for BFloat16")
        return honest(self, inputs)

    monkeypatch.setattr(BackendNetwork, "forward", refuse)
    predictor = Predictor(model)
    choice = choose_backend(predictor, 400, never)
    assert choice.plan == PLAIN
    assert "bf16 (cannot run this network: RuntimeError)" in choice.why
    assert calls == [1]
    assert choose_backend(predictor, 100_000, never).plan == PLAIN, "more images do not mend it"
    assert calls == [1]


def test_what_was_measured_for_a_smaller_job_is_known_to_a_larger_one(model, plans, shown, monkeypatch):
    """bf16 that turned out slower than float32 is not checked once more."""
    monkeypatch.setattr(autotune, "eager_speeds", lambda *given: {})
    predictor = Predictor(model)
    memory = BackendCache(predictor)
    memory.keep(PLAIN, replace(seen(20.0), wanted=0))
    memory.keep(BF16, replace(seen(16.0), wanted=48))
    assert choose_backend(predictor, 100_000, never).plan == PLAIN


def test_convolutions_in_another_memory_format_need_no_images(model, shown, monkeypatch):
    last = Backend(channels_last=True)
    monkeypatch.setattr(autotune, "backends_for", lambda network, device: [PLAIN, last])
    monkeypatch.setattr(autotune, "eager_speeds", lambda *given: {PLAIN: 20.0, last: 30.0})
    predictor = Predictor(model)
    choice = choose_backend(predictor, 100, never)
    assert (choice.plan, choice.why) == (last, "Answered in float32, channels last.")
    wanted, found = predictor.predict(shown[0])[0], predictor.predict(shown[0], choice.request)[0]
    assert found.probability == pytest.approx(wanted.probability, abs=1e-5)
    monkeypatch.setattr(
        BackendNetwork, "forward", lambda self, inputs: {"logits": torch.zeros(len(inputs["images"]), 3)}
    )
    BackendCache(predictor).path.unlink()
    choice = choose_backend(predictor, 100, never)
    assert choice.plan == PLAIN
    assert "otherwise to the proof image" in choice.why


def test_channels_last_changes_no_answer(model):
    predictor = Predictor(model)
    images = torch.randn(2, 3, 32, 32)
    out = BackendNetwork(predictor.network, Backend(channels_last=True), (2, 3, 32, 32))({"images": images})
    torch.testing.assert_close(out, predictor.network({"images": images}), rtol=0, atol=1e-5)


def test_reading_ahead_keeps_the_order_and_no_more_than_asked():
    begun = []

    def slow(i):
        begun.append(i)
        time.sleep(0.002 * (i % 3))
        return i

    stream = prefetch(slow, range(50), 6)
    first = next(stream)
    assert max(begun) <= 7
    assert [first, *stream] == list(range(50))
    assert list(prefetch(slow, [7], 6)) == [7]
    assert list(prefetch(slow, [], 6)) == []


def test_reading_ahead_leaves_the_number_of_threads_alone_and_passes_errors_on():
    before = torch.get_num_threads()
    assert len(list(prefetch(str, range(9), 4))) == 9
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError):
        list(prefetch(lambda i: 1 // i, [2, 1, 0, 3], 4))


def test_reading_by_turns_keeps_the_order_and_rests_while_the_caller_works():
    begun = []

    def slow(i):
        begun.append(i)
        time.sleep(0.002 * (i % 3))
        return i

    before = torch.get_num_threads()
    stream = read_then_compute(slow, range(10), 4)
    first = next(stream)
    assert sorted(begun) == [0, 1, 2, 3]
    assert torch.get_num_threads() == before
    assert [first, *stream] == list(range(10))
    assert list(read_then_compute(slow, [7], 4)) == [7]
    assert list(read_then_compute(slow, [], 4)) == []
    with pytest.raises(ZeroDivisionError):
        list(read_then_compute(lambda i: 1 // i, [2, 1, 0, 3], 4))


def test_what_is_fetched_ahead_is_the_same_picture_or_says_why(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"abc")
    assert Source("a.png", path).fetched().open() == b"abc"
    gone = Source("b.png", tmp_path / "b.png")
    assert gone.fetched() == gone
    piped = Source("-", data=b"x")
    assert piped.fetched() == piped
