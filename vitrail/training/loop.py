"""The training loop: one step, all steps, and the state from which a training is resumed.

All randomness of a step is derived from (seed, step, piece). So a resumed run, or a run on several processes, draws the
same numbers as one uninterrupted process with pieces of the same size (--micro).
"""

from __future__ import annotations

import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
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

from vitrail.core.errors import TrainingError
from vitrail.core.seeds import derive
from vitrail.data.batch import Batch
from vitrail.data.loader import Order
from vitrail.data.manifest import Row
from vitrail.runs.device import autocast
from vitrail.runs.network import Network
from vitrail.runs.run_network import answering, evaluating, run_network
from vitrail.tasks.base import AT, Losses, Task
from vitrail.tasks.result import Evaluation
from vitrail.training.micro_batches import halve_micro_batch
from vitrail.training.optim import Average, Schedule


class DivergedError(TrainingError):
    """A loss, gradient, output or weight is not finite. `what` names it and the step, `kept` the files still valid."""

    def __init__(self, what: str, way: str, kept: str = "") -> None:
        super().__init__(f"{what}; {kept}. {way}" if kept else f"{what}. {way}")
        self.what, self.way = what, way

    def keeping(self, kept: str) -> DivergedError:
        """Return the same error with a message about what the run keeps."""
        return DivergedError(self.what, self.way, kept)


class Event(NamedTuple):
    """An event of a training: the end of a `step` or an `epoch`, or `smaller` (the micro-batch was halved)."""

    kind: str
    step: int
    values: dict[str, Any]


@dataclass
class Session:
    """The state of a running training."""

    accelerator: Any
    network: nn.Module  # as prepared by Accelerate: wrapped, perhaps compiled
    bare: Network  # the same weights, unwrapped
    task: Task[Any, Any]
    optimiser: torch.optim.Optimizer
    average: Average[Network] | None
    order: Order
    schedule: Schedule
    clip: float
    precision: str
    layout: torch.memory_format = torch.contiguous_format  # of images, and of the weights of convolutions
    pieces: int = 1  # micro-batches that a process computes one after another in a step
    least: int = 1  # smallest number of images in a piece
    step: int = 0
    seconds: float = 0.0  # spent in steps, over all resumes

    @property
    def epoch(self) -> float:
        """Completed epochs, with a fraction."""
        return self.step / self.order.steps

    def evaluated(self) -> Network:
        """Return the network that is evaluated and saved: the moving average if there is one, else the bare network."""
        return self.average.module if self.average else self.bare


def steps(session: Session, batches: Iterator[Batch[Any]], stop: Callable[[], bool]) -> Iterator[Event]:
    """Train until the schedule ends or `stop` returns True. At each event the session is in a consistent state."""
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
        took = time.perf_counter() - began  # includes waiting for images, but not handling the event
        session.seconds += took
        values: dict[str, Any] = {"loss": loss, "lr": rate, "seconds": took, "epoch": session.epoch}
        if len(parts) > 1:
            values["parts"] = parts
        yield Event("step", session.step, values)
        done = session.step >= session.schedule.total
        if done or session.step % session.order.steps == 0:
            yield Event("epoch", session.step, {"epoch": session.epoch})
        if done or stop():
            return
        began = time.perf_counter()


def take_step(session: Session, batch: Batch[Any]) -> tuple[float, dict[str, float]]:
    """Compute the gradients of this process's part, piece by piece, and update the weights once.

    Return the loss and its parts by name, over all processes.
    """
    session.network.train()
    if not any(p.requires_grad for p in session.bare.encoder.parameters()):
        session.bare.encoder.eval()  # frozen: no drop path, and batch norms keep their statistics
    counted = _counted(session, batch)
    parts = cut(len(batch), session.pieces, session.least)
    total = torch.zeros((), device=session.accelerator.device)
    sums: dict[str, Tensor] = {}
    for i, part in enumerate(parts):
        number = session.accelerator.process_index * session.pieces + i
        last = i == len(parts) - 1
        with (
            seeded_dropout(session, number),
            nullcontext() if last else session.accelerator.no_sync(session.network),
        ):
            piece = batch.slice(int(part[0]), int(part[-1]) + 1)
            losses = losses_of_piece(session, piece.to(session.accelerator.device, session.layout), number)
            counts = {IMAGES: len(part), **session.task.weights(piece.targets)}
            share = weighed(losses, counts, counted)
            session.accelerator.backward(share)
        total += share.detach()
        for name, amount in _parts(losses, counts, counted).items():
            sums[name] = sums[name] + amount if name in sums else amount
    value, *means = session.accelerator.reduce(
        torch.stack([total, *sums.values()]), reduction="mean"
    ).tolist()
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
    return value, dict(zip(sums, means, strict=True))


def cut(images: int, pieces: int, least: int) -> list[NDArray[np.int64]]:
    """Return the image indices of each piece of a process; no piece has fewer than `least` images if there are enough.

    A process with one image less than the others may have fewer pieces.
    """
    return np.array_split(np.arange(images), max(1, min(pieces, images // least)))


IMAGES = ""
"""The name under which a step counts its images."""


def _counted(session: Session, batch: Batch[Any]) -> dict[str, float]:
    """Return the weight of each part of the loss over the whole step, divided by the number of processes.

    Pieces may differ by one image, within a process or between processes. Each is weighted by what it holds, so that
    the mean over processes is the loss of the whole batch.
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
    """Return the contribution of a piece to the loss of the whole step, each part with its own weight.

    A part whose weight in the whole step is zero contributes zero.
    """
    shares: dict[float, list[Tensor]] = defaultdict(list)
    for name, part in losses.parts.items():
        shares[_share(name.partition(AT)[0], piece, whole)].append(part)
    summed = [sum(parts[1:], parts[0]) * share for share, parts in shares.items()]
    return sum(summed[1:], summed[0])


def _share(part: str, piece: Mapping[str, float], whole: Mapping[str, float]) -> float:
    """Return the fraction of a loss part's weight in the whole step that this piece holds."""
    counts = part if part in whole else IMAGES
    return piece[counts] / whole[counts] if whole[counts] else 0.0


def _parts(losses: Losses, piece: Mapping[str, float], whole: Mapping[str, float]) -> dict[str, Tensor]:
    """Return what each part adds to the loss of the whole step, summed over operating points."""
    added: dict[str, Tensor] = {}
    for name, part in losses.parts.items():
        base = name.partition(AT)[0]
        amount = part.detach().float() * _share(base, piece, whole)
        added[base] = added[base] + amount if base in added else amount
    return added


def _diverged(session: Session, what: str) -> DivergedError:
    session.optimiser.zero_grad(set_to_none=True)
    return DivergedError(what, way_out(session))


def way_out(session: Session) -> str:
    """Return the advice for a training that diverges."""
    return f"Try a lower learning rate (--lr {session.schedule.peak / 3:.2g}) or --precision float32."


def losses_of_piece(session: Session, batch: Batch[Any], piece: int) -> Losses:
    """Return the losses of one piece of a step, with randomness from (seed, step, piece)."""
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
    """Use deterministic algorithms. On a GPU, operations without one (attention) run as they are."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    filled = settings.fill_uninitialized_memory
    # Filling only helps to find bugs in kernels. It makes nothing deterministic, and it costs time.
    settings.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    try:
        with warnings.catch_warnings():
            # A run on a GPU says so itself, once, and in plain words.
            warnings.filterwarnings("ignore", ".*does not have a deterministic implementation")
            warnings.filterwarnings("ignore", ".*defaults to a non-deterministic algorithm")
            yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        settings.fill_uninitialized_memory = filled


def evaluate(session: Session, batches: Iterator[Batch[Any]], rows: Mapping[str, Row]) -> Evaluation:
    """Return the task's evaluation of the batches, gathered from all processes. `rows` maps ids to images.

    Convolutions compute in the memory format of their weights, so the images need not be converted.
    """
    network, evaluation = session.evaluated(), session.task.evaluation()
    compute = answering(session.task, network, size=network.encoder.image_size)
    with evaluating(network):
        for batch, output in run_network(compute, batches, session.accelerator.device, session.precision):
            evaluation.update([rows[id] for id in batch.ids], output, batch.targets, batch.geometry)
    return _gathered(session, evaluation)


def _gathered(session: Session, evaluation: Evaluation) -> Evaluation:
    """Return the evaluations of all processes, merged."""
    if session.accelerator.num_processes == 1:
        return evaluation
    from accelerate.utils import gather_object

    whole: Evaluation = session.task.evaluation()
    for part in gather_object([evaluation]):
        whole.merge(part)
    return whole


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def snapshot(session: Session) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the counters that resuming needs."""
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
    """Load a snapshot into a newly built session."""

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
    set_optimizer_state_dict(session.bare, inner, present, options=replace(_WHOLE, strict=False))
    _without_state(session.bare, inner, memory)
    _match_layout(inner)
    session.step, session.pieces = counters["step"], counters["pieces"]
    session.seconds = counters["seconds"]
    session.schedule = Schedule(**counters["schedule"])


def _without_state(network: nn.Module, optimiser: torch.optim.Optimizer, memory: Mapping[str, Any]) -> None:
    """Remove the state of weights that had none when it was saved: a task froze them, so they had no gradient yet.

    Loading gives them a state that counts a step which was never taken.
    """
    for name, parameter in network.named_parameters():
        if name not in memory:
            optimiser.state.pop(parameter, None)


def _match_layout(optimiser: torch.optim.Optimizer) -> None:
    """Give the state of each weight the strides of the weight; saved tensors are contiguous.

    Fused AdamW on a CPU combines weight and state in the order of memory: with other strides it is silently wrong.
    """
    for parameter, memory in optimiser.state.items():
        for key, tensor in memory.items():
            if tensor.shape == parameter.shape and tensor.stride() != parameter.stride():
                memory[key] = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
