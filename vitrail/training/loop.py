"""The page that trains: one step, many steps, and the state that continues them.

All randomness of a step is derived from (seed, step, piece), so that a resumed run, or one spread over several
processes, draws what one undisturbed process draws with pieces of the same size (--micro).
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from vitrail.core.errors import VitrailError
from vitrail.core.seeds import derive
from vitrail.data.batch import Batch
from vitrail.data.loader import Order
from vitrail.data.manifest import Row
from vitrail.runs.device import autocast
from vitrail.runs.network import Network
from vitrail.runs.run_network import answering, evaluating, run_network
from vitrail.tasks.base import AT, Losses, Task
from vitrail.tasks.result import Evaluation
from vitrail.training.optim import Average, Schedule


class TrainingError(VitrailError):
    """Training cannot go on."""


class DivergedError(TrainingError):
    """A loss, gradient, answer or weight is not finite; `what` names it and the step, `kept` what is still good."""

    def __init__(self, what: str, way: str, kept: str = "") -> None:
        super().__init__(f"{what}; {kept}. {way}" if kept else f"{what}. {way}")
        self.what, self.way = what, way

    def keeping(self, kept: str) -> DivergedError:
        """Return the same error, saying what of the run is kept."""
        return DivergedError(self.what, self.way, kept)


class Event(NamedTuple):
    """What happened: `step` (a step is done), `epoch` (an epoch is done), `smaller` (the micro-batch was halved)."""

    kind: str
    step: int
    values: dict[str, Any]


@dataclass
class Session:
    """A training under way."""

    accelerator: Any
    network: nn.Module  # as prepared for these devices: wrapped, perhaps compiled
    bare: Network  # the same weights, unwrapped
    task: Task[Any, Any]
    optimiser: torch.optim.Optimizer
    average: Average[Network] | None
    order: Order
    schedule: Schedule
    clip: float
    precision: str
    pieces: int = 1  # micro-batches a process computes one after another for one step
    least: int = 1  # images of the smallest piece that the network can learn from
    step: int = 0
    seconds: float = 0.0  # spent in steps so far, over all resumes

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return self.step / self.order.steps

    def evaluated(self) -> Network:
        """Return the network that is evaluated and kept: the average, or the weights themselves."""
        return self.average.module if self.average else self.bare


def steps(session: Session, batches: Iterator[Batch[Any]], stop: Callable[[], bool]) -> Iterator[Event]:
    """Train until the schedule ends or `stop` says so; each event leaves the session in a whole state."""
    began = time.perf_counter()
    for batch in batches:
        rate = session.schedule(session.step)
        for group in session.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        while True:
            try:
                loss, parts = take_step(session, batch)
                break
            except torch.OutOfMemoryError:
                halve_micro_batch(session, len(batch.ids))
            yield Event("smaller", session.step, {"micro": -(-len(batch.ids) // session.pieces)})
        session.step += 1
        took = time.perf_counter() - began  # waiting for images counts, looking at the event does not
        session.seconds += took
        told: dict[str, Any] = {"loss": loss, "lr": rate, "seconds": took, "epoch": session.epoch}
        yield Event("step", session.step, told | ({"parts": parts} if len(parts) > 1 else {}))
        done = session.step >= session.schedule.total
        if done or session.step % session.order.steps == 0:
            yield Event("epoch", session.step, {"epoch": session.epoch})
        if done or stop():
            return
        began = time.perf_counter()


def halve_micro_batch(session: Session, local: int) -> None:
    """Halve the micro-batch, keeping the batch; give up where one image at a time is still too much."""
    session.optimiser.zero_grad(set_to_none=True)
    most = local // session.least
    if session.accelerator.num_processes > 1 or session.pieces >= most or session.task.couples:
        raise TrainingError(
            f"Memory ran out at step {session.step} with {local // session.pieces} images at a time. "
            "Lower it with --micro, or choose a smaller network or --imgsz."
        ) from None
    session.pieces = min(most, session.pieces * 2)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def take_step(session: Session, batch: Batch[Any]) -> tuple[float, dict[str, float]]:
    """Compute the gradients of this process's part, piece by piece, and move the weights once.

    Returns the loss and its parts by name, of all processes.
    """
    session.network.train()
    if not any(p.requires_grad for p in session.bare.encoder.parameters()):
        session.bare.encoder.eval()  # frozen: no drop path, and batch norms keep their statistics
    counted = _counted(session, batch)
    parts = cut(len(batch), session.pieces, session.least)
    total = torch.zeros((), device=session.accelerator.device)
    told: dict[str, Tensor] = {}
    for i, part in enumerate(parts):
        number = session.accelerator.process_index * session.pieces + i
        last = i == len(parts) - 1
        with (
            seeded_dropout(session, number),
            nullcontext() if last else session.accelerator.no_sync(session.network),
        ):
            piece = batch.slice(int(part[0]), int(part[-1]) + 1)
            losses = losses_of_piece(session, piece.to(session.accelerator.device), number)
            counts = {IMAGES: len(part), **session.task.weights(piece.targets)}
            share = weighed(losses, counts, counted)
            session.accelerator.backward(share)
        total += share.detach()
        for name, amount in _parts(losses, counts, counted).items():
            told[name] = told[name] + amount if name in told else amount
    value, *sums = session.accelerator.reduce(torch.stack([total, *told.values()]), reduction="mean").tolist()
    if not math.isfinite(value):
        raise _diverged(session, f"The loss became {value} at step {session.step + 1}")
    if session.clip:
        norm = session.accelerator.clip_grad_norm_(session.network.parameters(), session.clip)
        if norm is not None and not math.isfinite(norm):
            raise _diverged(session, f"The gradient became {float(norm)} at step {session.step + 1}")
    session.optimiser.step()
    session.optimiser.zero_grad(set_to_none=True)
    if session.average:
        session.average.update(session.bare, session.step)
    return value, dict(zip(told, sums, strict=True))


def cut(images: int, pieces: int, least: int) -> list[NDArray[np.int64]]:
    """Return the places of a process's images piece by piece, none with fewer than `least` where there are as many.

    A process with an image fewer than the others may have fewer pieces.
    """
    return np.array_split(np.arange(images), max(1, min(pieces, images // least)))


IMAGES = ""
"""The name under which a step counts its images."""


def _counted(session: Session, batch: Batch[Any]) -> dict[str, float]:
    """Return what each part of the loss counts over the whole step, as a share of one process.

    Pieces may differ by one image, in one process or from one to another: each counts by what it holds, and the mean
    over processes is the step of the whole batch.
    """
    world = session.accelerator.num_processes
    weights = dict(session.task.weights(batch.targets))
    if world == 1:
        return {IMAGES: len(batch), **weights}
    if weights:
        mine = torch.tensor([*weights.values()], dtype=torch.float64, device=session.accelerator.device)
        sums = session.accelerator.reduce(mine, reduction="sum").tolist()
        weights = {name: value / world for name, value in zip(weights, sums, strict=True)}
    return {IMAGES: session.order.batch / world, **weights}


def weighed(losses: Losses, piece: Mapping[str, float], whole: Mapping[str, float]) -> Tensor:
    """Return a piece's part of the loss of the whole step: each part by what it counts of it.

    A part that counts nothing in the whole step is nothing.
    """
    shares: dict[float, list[Tensor]] = defaultdict(list)
    for name, part in losses.parts.items():
        shares[_share(name.partition(AT)[0], piece, whole)].append(part)
    summed = [sum(parts[1:], parts[0]) * share for share, parts in shares.items()]
    return sum(summed[1:], summed[0])


def _share(part: str, piece: Mapping[str, float], whole: Mapping[str, float]) -> float:
    """Return how much of what a part of the loss counts in the whole step stands in a piece."""
    counts = part if part in whole else IMAGES
    return piece[counts] / whole[counts] if whole[counts] else 0.0


def _parts(losses: Losses, piece: Mapping[str, float], whole: Mapping[str, float]) -> dict[str, Tensor]:
    """Return what each part adds to the loss of the whole step; those of one name at several points as one."""
    added: dict[str, Tensor] = {}
    for name, part in losses.parts.items():
        called = name.partition(AT)[0]
        amount = part.detach().float() * _share(called, piece, whole)
        added[called] = added[called] + amount if called in added else amount
    return added


def _diverged(session: Session, what: str) -> DivergedError:
    session.optimiser.zero_grad(set_to_none=True)
    return DivergedError(what, way_out(session))


def way_out(session: Session) -> str:
    """Return what helps a training that diverges."""
    return f"Try a lower learning rate (--lr {session.schedule.peak / 3:.2g}) or --precision float32."


def losses_of_piece(session: Session, batch: Batch[Any], piece: int) -> Losses:
    """Return the losses of one piece of a step, its randomness that of (seed, step, piece)."""
    rng = np.random.default_rng(derive(session.order.seed, "prepare", session.step, piece))
    progress = session.step / max(1, session.schedule.total)
    with autocast(session.accelerator.device, session.precision):
        return session.task.training_loss(session.network, batch, rng, progress)


@contextmanager
def seeded_dropout(session: Session, piece: int) -> Iterator[None]:
    """Seed dropout and drop path for one piece of one step."""
    torch.manual_seed(derive(session.order.seed, "dropout", session.step, piece))
    yield


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Train with algorithms that give the same bits again; on a GPU those that have none only warn."""
    was = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    filled = settings.fill_uninitialized_memory
    settings.fill_uninitialized_memory = (
        False  # it finds bugs in kernels, makes nothing deterministic, and costs time
    )
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was[0], warn_only=was[1])
        settings.fill_uninitialized_memory = filled


def evaluate(session: Session, batches: Iterator[Batch[Any]], rows: Mapping[str, Row]) -> Evaluation:
    """Return the task's evaluation of batches, gathered from all processes; `rows` are the images by id."""
    network, evaluation = session.evaluated(), session.task.evaluation()
    compute = answering(session.task, network, size=network.encoder.image_size)
    with evaluating(network):
        for batch, output in run_network(compute, batches, session.accelerator.device, session.precision):
            evaluation.update([rows[one] for one in batch.ids], output, batch.targets, batch.geometry)
    return _gathered(session, evaluation)


def _gathered(session: Session, evaluation: Evaluation) -> Evaluation:
    """Return what all processes evaluated, in one."""
    if session.accelerator.num_processes == 1:
        return evaluation
    from accelerate.utils import gather_object

    whole: Evaluation = session.task.evaluation()
    for part in gather_object([evaluation]):
        whole.merge(part)
    return whole


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def snapshot(session: Session) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return everything a resume needs: tensors, and the numbers beside them."""
    tensors = {f"network.{k}": v.detach().cpu() for k, v in session.bare.state_dict().items()}
    if session.average:
        tensors |= {f"average.{k}": v.detach().cpu() for k, v in session.average.module.state_dict().items()}
    inner = getattr(session.optimiser, "optimizer", session.optimiser)
    state: dict[str, Any] = get_optimizer_state_dict(session.bare, inner, options=_WHOLE)
    for name, memory in state["state"].items():
        tensors |= {f"optimiser.{name}:{key}": value for key, value in memory.items()}
    counters = {
        "step": session.step,
        "schedule": asdict(session.schedule),
        "pieces": session.pieces,
        "seconds": session.seconds,
    }
    return {k: v.contiguous().clone() for k, v in tensors.items()}, counters


def restore(session: Session, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
    """Put a snapshot back into a freshly built session."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    session.bare.load_state_dict(part("network."))
    if session.average:
        session.average.module.load_state_dict(part("average."))
    inner = getattr(session.optimiser, "optimizer", session.optimiser)
    present: dict[str, Any] = get_optimizer_state_dict(session.bare, inner, options=_WHOLE)
    memory: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in part("optimiser.").items():
        parameter, _, key = name.rpartition(":")
        memory[parameter][key] = tensor
    present["state"] = dict(memory)
    set_optimizer_state_dict(session.bare, inner, present, options=_WHOLE)
    session.step, session.pieces = counters["step"], counters["pieces"]
    session.seconds = counters["seconds"]
    session.schedule = Schedule(**counters["schedule"])
