"""The quickest faithful way to run a network on this machine: chosen by the length of the job, proven, remembered.

A way is used only once its answers were seen to agree with float32 on pictures of the run: what it costs to see
that, and to compile, is weighed against what it saves. Both are kept in the cache, so that the next job knows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from vitrail.core.errors import DataError, VitrailError
from vitrail.core.files import write_json
from vitrail.core.paths import cache_dir, compiler
from vitrail.data.manifest import VAL
from vitrail.infer.held_back import Pixels, pictures_of, readable, root_of
from vitrail.infer.opened import ExportedPredictor
from vitrail.infer.predictor import BATCH, Predictor, Source
from vitrail.runs.device import fast_bf16
from vitrail.runs.folder import open_run

CHECKED = 200
"""Pictures that a way is proven on, at most."""

SAME_TOP = 0.995
"""The least share of top answers that must be float32's."""

DRIFT = 0.05
"""How far a probability may lie from float32's; how far it did lie is said with the answers."""

GUESS = 2.0
"""How much quicker a way is held to be before it was measured."""

COMPILING = 30.0
"""Seconds that compiling is held to take before it was measured."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A way to run a network; the default is float32 as it was trained."""

    precision: Literal["float32", "bf16"] = "float32"
    channels_last: bool = False
    compiled: bool = False

    def __str__(self) -> str:
        words = [self.precision, *(["channels last"] if self.channels_last else [])]
        return ", ".join([*words, *(["compiled, weights frozen"] if self.compiled else [])])


PLAIN = Plan()


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured of a plan: pictures a second, seconds to set it up, and how it agreed with float32."""

    speed: float
    setup: float
    same_top: float
    drift: float
    pictures: int

    @property
    def faithful(self) -> bool:
        """Whether it may be used."""
        return self.same_top >= SAME_TOP and self.drift <= DRIFT


class Quick(nn.Module):
    """A network's twin that runs by a plan: images (b, channels, height, width) in float32 -> output in float32."""

    def __init__(self, network: nn.Module, plan: Plan, batch: int = BATCH) -> None:
        super().__init__()
        self.plan, self.batch = plan, batch
        self.dtype = torch.bfloat16 if plan.precision == "bf16" else torch.float32
        self.layout = torch.channels_last if plan.channels_last else torch.contiguous_format
        twin = deepcopy(network).eval().to(self.dtype).to(memory_format=self.layout)
        self.run: Callable[[Tensor], Tensor] = _compiled(twin) if plan.compiled else twin

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's output."""
        count = len(images)
        if self.plan.compiled and count < self.batch:  # a batch of another size would be compiled anew
            images = torch.cat([images, images.new_zeros(self.batch - count, *images.shape[1:])])
        out = self.run(images.to(self.dtype).contiguous(memory_format=self.layout))
        return out[:count].float()


def _compiled(network: nn.Module) -> Callable[[Tensor], Tensor]:
    if next(network.parameters()).device.type == "cuda":
        # Reduced overhead means CUDA graphs.
        return torch.compile(network, mode="reduce-overhead", dynamic=False)
    return torch.compile(network, dynamic=False, options={"freezing": True})


class Memory:
    """What was measured of one model on this machine, kept as JSON in the cache; plain float32 under its own name."""

    def __init__(self, predictor: Predictor) -> None:
        said = (
            predictor.header.model_dump_json(),
            torch.__version__,
            torch.get_num_threads(),
            predictor.device,
            *((str(predictor.point),) if predictor.point != predictor.points[-1] else ()),
        )
        capability = torch.backends.cpu.get_cpu_capability()
        key = blake2b(repr((*said, capability)).encode(), digest_size=12).hexdigest()
        self.path: Path = cache_dir() / "fast" / f"{key}.json"
        self.seen: dict[Plan, Seen] = {}
        try:
            for row in json.loads(self.path.read_text(encoding="utf-8")):
                self.seen[Plan(**row["plan"])] = Seen(**row["seen"])
        except (OSError, ValueError, KeyError, TypeError):
            self.seen = {}  # nothing, or of another version: it is measured again

    def keep(self, plan: Plan, seen: Seen) -> None:
        """Remember a plan."""
        self.seen[plan] = seen
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, [{"plan": asdict(p), "seen": asdict(s)} for p, s in self.seen.items()])


class Choice(NamedTuple):
    """The plan that a job runs by, and why, in words."""

    plan: Plan
    why: str


def plans_for(predictor: Predictor) -> list[Plan]:
    """Return the plans this machine is worth asking about, plain float32 first."""
    last = predictor.network.spec.attention == "none"  # convolutions read a picture's channels together
    precision: Literal["float32", "bf16"] = "bf16" if fast_bf16(predictor.device) else "float32"
    plans = [PLAIN, Plan(precision, last)]
    if predictor.device.type == "cuda" or (predictor.device.type == "cpu" and compiler()):
        plans.append(Plan(precision, last, compiled=True))
    return list(dict.fromkeys(plans))


def quicken(predictor: Predictor, pictures: int, proof: Callable[[], Sequence[Pixels]]) -> Choice:
    """Let a predictor answer `pictures` pictures the quickest faithful way.

    `proof` gives pictures to compare with float32 on; it is asked only where a plan was not proven before.
    """
    memory = Memory(predictor)
    plans = plans_for(predictor)
    shown: list[Tensor] = []
    while True:
        allowed = [plan for plan in plans if plan not in memory.seen or memory.seen[plan].faithful]
        plan = min(allowed, key=lambda one: _seconds(one, memory, pictures))
        if plan == PLAIN:
            return Choice(PLAIN, _why(PLAIN, memory))
        if plan in memory.seen:
            predictor.running = Quick(predictor.network, plan)
            return Choice(plan, _why(plan, memory))
        shown = shown or [predictor.ready(picture).pixels for picture in proof()[:CHECKED]]
        _measure(predictor, plan, memory, shown)


def hasten(predictor: Predictor, model: str | Path, sources: Sequence[Source]) -> str:
    """Quicken a predictor for a job; returns in words how it answers, or "" where it answers as it always does.

    Proven on the validation pictures of a run, or, where the model is alone, on the first pictures of the job.
    """
    if isinstance(predictor, ExportedPredictor):
        return ""  # the file says how it is computed

    def proof() -> list[Pixels]:
        channels = predictor.preprocess.channels
        try:
            run = open_run(model)
            return pictures_of(run, root_of(run), (VAL,), channels, CHECKED)
        except VitrailError:  # no run, or its pictures have moved
            return readable(partial(_decoded, predictor, one) for one in sources[:CHECKED])

    try:
        choice = quicken(predictor, len(sources), proof)
    except DataError:
        return ""  # no picture can be read at all; the answers will say so one by one
    return "" if choice.plan == PLAIN else choice.why


def _decoded(predictor: Predictor, source: Source) -> Pixels:
    return predictor.decoded(source.open())


def _seconds(plan: Plan, memory: Memory, pictures: int) -> float:
    """Return how long a job is held to take by a plan, setting up and proving included."""
    plain = memory.seen[PLAIN].speed if PLAIN in memory.seen else _FIRST
    if plan in memory.seen:
        return memory.seen[plan].setup * plan.compiled + pictures / memory.seen[plan].speed
    if plan == PLAIN:
        return pictures / plain
    quick = plain * GUESS * (GUESS if plan.compiled else 1)
    return COMPILING * plan.compiled + CHECKED * (1 / plain + 1 / quick) + pictures / quick


_FIRST = 20.0
"""Pictures a second that an unknown network is held to answer."""


def _measure(predictor: Predictor, plan: Plan, memory: Memory, shown: Sequence[Tensor]) -> None:
    """Run pictures both ways and remember what was seen."""
    began = time.perf_counter()
    quick = Quick(predictor.network, plan)
    batches = [torch.stack(list(shown[i : i + BATCH])) for i in range(0, len(shown), BATCH)]
    _timed(predictor, quick, batches[0])  # compiles
    setup = time.perf_counter() - began
    if PLAIN not in memory.seen:
        _, times = _run(predictor, predictor.network, batches)
        memory.keep(PLAIN, Seen(_speed(batches, times), 0.0, 1.0, 0.0, len(shown)))
    wanted, _ = _run(predictor, predictor.network, batches)
    found, times = _run(predictor, quick, batches)
    p, q = predictor.task.probabilities(wanted), predictor.task.probabilities(found)
    same = (p.argmax(-1) == q.argmax(-1)).float().mean()
    memory.keep(
        plan, Seen(_speed(batches, times), setup, float(same), float((p - q).abs().max()), len(shown))
    )


def _run(predictor: Predictor, network: nn.Module, batches: Sequence[Tensor]) -> tuple[Tensor, list[float]]:
    each = [_timed(predictor, network, batch) for batch in batches]
    return torch.cat([output for output, _ in each]), [seconds for _, seconds in each]


def _timed(predictor: Predictor, network: nn.Module, batch: Tensor) -> tuple[Tensor, float]:
    began = time.perf_counter()
    with torch.inference_mode():
        output = predictor.task.infer(network, batch.to(predictor.device)).float().cpu()
    return output, time.perf_counter() - began


def _speed(batches: Sequence[Tensor], times: Sequence[float]) -> float:
    each = [len(batch) / seconds for batch, seconds in zip(batches, times, strict=True)]
    return median(each)


def _why(plan: Plan, memory: Memory) -> str:
    failed = [
        f"{p} (only {s.same_top:.1%} of top answers as float32)"
        for p, s in memory.seen.items()
        if not s.faithful
    ]
    left_out = f" Not used: {', '.join(failed)}." if failed else ""
    if plan == PLAIN:
        return f"Answered in {plan}.{left_out}"
    seen: Any = memory.seen[plan]
    return (
        f"Answered in {plan}: on {seen.pictures} pictures {seen.same_top:.1%} of top answers as in float32, "
        f"no probability further off than {seen.drift:.2g}.{left_out}"
    )
