"""The training loop: memory, broken losses, schedules, averages, two processes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from vitrail.core.errors import TrainingError
from vitrail.data.batch import Batch
from vitrail.data.loader import Order
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network, build_task, create_model
from vitrail.runs.recipe import compose
from vitrail.training.loop import steps
from vitrail.training.micro_batches import halve_micro_batch
from vitrail.training.optim import Average, Schedule, parameter_groups
from vitrail.training.session import accelerator_for, open_session

LABELS = ("a", "b", "c")


def recipe(**training):
    own = {
        "data": {"source": "nowhere"},
        "model": {"name": "vit_digits", "imgsz": (32, 32), "drop_path": 0.0},
        "training": {
            "epochs": 2,
            "batch": 12,
            "micro": 12,
            "precision": "float32",
            "device": "cpu",
            **training,
        },
    }
    return compose("digits_vit", own)


def assembled(made):
    task = build_task(made.task.name, LABELS, made.task.settings)
    encoder = create_encoder(made.model.name, image=made.model.imgsz, drop_path=made.model.drop_path)
    return build_network(encoder, task), task


def session(**training):
    torch.manual_seed(0)
    made = recipe(**training)
    network, task = assembled(made)
    return open_session(made, network, task, Order(24, 12, 0), accelerator_for("cpu"))


def test_images_that_learn_from_each_other_are_never_parted():
    torch.manual_seed(0)
    made = recipe(micro=4)
    network, task = assembled(made)
    assert open_session(made, network, task, Order(24, 12, 0), accelerator_for("cpu")).pieces == 3
    task.couples = True
    coupled = open_session(made, network, task, Order(24, 12, 0), accelerator_for("cpu"))
    assert coupled.pieces == 1
    with pytest.raises(TrainingError, match="Memory ran out"):
        halve_micro_batch(coupled, 12)


def batches(count=4, size=12):
    generator = torch.Generator().manual_seed(1)
    for step in range(count):
        images = torch.randn(size, 3, 32, 32, generator=generator)
        yield Batch({"images": images}, [(i + step) % 3 for i in range(size)], tuple(map(str, range(size))))


def never():
    return False


def test_pieces_give_the_step_of_the_whole_batch():
    whole, pieces = session(), session(micro=5)
    assert (whole.pieces, pieces.pieces) == (1, 3)
    losses = [
        [e.values["loss"] for e in steps(s, batches(), never) if e.kind == "step"] for s in (whole, pieces)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=2e-5)


class Hungry(nn.Module):
    """Runs out of memory above a number of images, like a GPU."""

    def __init__(self, network: nn.Module, most: int) -> None:
        super().__init__()
        self.network, self.most = network, most

    def forward(self, inputs):
        if len(inputs["images"]) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.network(inputs)


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_batch():
    one = session()
    one.network = Hungry(one.network, 4)
    heard = list(steps(one, batches(), never))
    assert [e.values["micro"] for e in heard if e.kind == "smaller"] == [6, 3]
    assert [e.step for e in heard if e.kind == "step"] == [1, 2, 3, 4]
    calm = session(micro=3)
    expected = [e.values["loss"] for e in steps(calm, batches(), never) if e.kind == "step"]
    assert [e.values["loss"] for e in heard if e.kind == "step"] == pytest.approx(expected, abs=1e-6)


def test_out_of_memory_with_one_picture_says_what_to_do():
    one = session()
    one.network = Hungry(one.network, 0)
    with pytest.raises(TrainingError, match="--micro"):
        list(steps(one, batches(), never))


def test_a_broken_loss_stops_names_the_step_and_keeps_good_weights():
    one = session()
    good = list(batches())
    good[2].images[0, 0, 0, 0] = math.nan
    events = steps(one, iter(good), never)
    assert [next(events).step for _ in range(3)] == [1, 2, 2]  # the second step ends an epoch
    before = {k: v.clone() for k, v in one.bare.state_dict().items()}
    with pytest.raises(TrainingError, match="step 3"):
        next(events)
    assert all(torch.equal(v, before[k]) for k, v in one.bare.state_dict().items())
    assert all(torch.isfinite(v).all() for v in one.bare.state_dict().values())


def test_schedule_warms_up_then_falls_to_a_hundredth():
    schedule = Schedule(peak=1.0, warmup=10, total=110)
    rates = [schedule(step) for step in range(110)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[10] == max(rates) == 1.0
    assert rates[60] == pytest.approx(0.505)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)


def test_average_follows_the_formula():
    network = nn.Linear(3, 2)
    average = Average(network, decay=0.9)
    expected = network.weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            network.weight += 1.0
        average.update(network, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.weight.detach()
    assert torch.allclose(average.module.weight, expected, atol=1e-5)


def test_norms_biases_tokens_and_positions_do_not_decay():
    network, _ = assembled(recipe())
    free = {
        id(p)
        for group in parameter_groups(network, 0.05)
        if not group["weight_decay"]
        for p in group["params"]
    }
    names = {name for name, p in network.named_parameters() if id(p) in free}
    decayed = {name for name, _ in network.named_parameters()} - names
    assert all(name.endswith("weight") for name in decayed)
    assert not any("norm" in name or "position" in name or "prefix" in name for name in decayed)
    assert any("position" in name for name in names)


@pytest.mark.parametrize(
    ("name", "free"),
    [
        ("swin_t", {"pyramid.stages.0.0.attention.bias.table"}),
        ("supervit_s", {"positions.0.table", "prefix.tokens"}),
        ("deit_ti16_distilled", {"position.table", "prefix.tokens"}),
        ("dinov2_s14_reg4", {"position.table", "registers.tokens"}),
        ("eomt_s", {"position.table", "registers.tokens", "blocks.queries"}),
    ],
)
def test_only_matrices_decay_in_every_family(name, free):
    with torch.device("meta"):
        network = create_model(name, 4)
    decayed = {
        id(p) for group in parameter_groups(network, 0.05) if group["weight_decay"] for p in group["params"]
    }
    names = {key for key, p in network.named_parameters() if id(p) in decayed}
    matrices = {
        f"{key}.weight" for key, part in network.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)
    }
    assert names == matrices  # the head's too: of a distilled network both
    assert not {f"encoder.{key}" for key in free} & names


@pytest.mark.parametrize(
    ("name", "first", "between", "last"),
    [
        ("swin_t", "embed.project", "pyramid.merges.0.reduce", "pyramid.stages.3.1.mlp.fall"),
        ("vvt_t", "embeds.0.project", "embeds.1.project", "stages.3.1.mlp.fall"),
        ("t2t_vit_7", "split.steps.0.norm1", "", "blocks.6.mlp.fall"),
        ("vit_r26_s32", "stem.stages.0.0.norm1", "", "blocks.11.mlp.fall"),
    ],
)
def test_the_deeper_the_larger_the_share(name, first, between, last):
    with torch.device("meta"):
        network = create_model(name, 4)
    share = {id(p): group["share"] for group in parameter_groups(network, 0.05, 0.5) for p in group["params"]}
    learnt = [(key, p) for key, p in network.named_parameters() if p.requires_grad]
    by_name = {key.removeprefix("encoder."): share[id(p)] for key, p in learnt}
    depth = network.encoder.spec.blocks
    assert by_name["head.linear.weight"] == 1.0
    assert by_name[f"{last}.weight"] == 0.5
    assert by_name[f"{first}.weight"] == 0.5 ** (depth + 1)
    if between:  # as the last block of the first stage, of two blocks
        assert by_name[f"{between}.weight"] == 0.5 ** (depth - 1)


@pytest.mark.parametrize("processes", [2])
def test_two_processes_give_one_process_losses(processes, tmp_path):
    script = Path(__file__).with_name("two_processes.py")
    found = {}
    for count in (1, processes):
        out = tmp_path / f"{count}.json"
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
        done = subprocess.run([*launch, str(script), str(out)], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-2000:]
        found[count] = json.loads(out.read_text())
    assert found[1]["losses"] == pytest.approx(found[processes]["losses"], abs=1e-5)
    assert found[1]["accuracy"] == found[processes]["accuracy"]
    assert len(found[1]["losses"]) == 6


def test_a_head_may_learn_at_a_rate_of_its_own():
    with torch.device("meta"):
        network = create_model("vit_digits", 4)
    groups = parameter_groups(network, 0.05, 0.5, head_rate=10.0)
    share = {id(p): group["share"] for group in groups for p in group["params"]}
    assert {share[id(p)] for p in network.head.parameters()} == {10.0}
    assert max(share[id(p)] for p in network.encoder.parameters()) == 1.0


def test_an_evaluation_that_fails_stops_a_training_before_its_first_step(tmp_path, monkeypatch):
    """Not after the first epoch, which may take an hour."""
    from vitrail.tasks.classify.evaluation import ClassEvaluation
    from vitrail.training.fit import TrainOptions, train

    def fails(self):
        raise ZeroDivisionError("no score")

    monkeypatch.setattr(ClassEvaluation, "scores", fails)
    options = TrainOptions(model="vit_digits", epochs=1, out=str(tmp_path / "run"), device="cpu")
    steps = []
    with pytest.raises(ZeroDivisionError, match="no score"):
        train(
            "digits", options, listeners=[lambda event: steps.append(event) if event.kind == "step" else None]
        )
    assert not steps
