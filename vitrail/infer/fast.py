"""The quickest faithful way to run a network on this machine: chosen by the length of the job, proven, remembered.

A way is used only once its answers were seen to agree with float32 on pictures of the run: what it costs to see
that, and to compile, is weighed against what it saves. Both are kept in the cache, so that the next job knows.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b, file_digest
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitrail.core.errors import DataError, RunError, VitrailError
from vitrail.core.files import write_json
from vitrail.core.paths import cache_dir
from vitrail.data.manifest import VAL
from vitrail.infer.held_back import Pixels, readable, readers_of, root_of
from vitrail.infer.opened import ExportedPredictor
from vitrail.infer.plans import PLAIN, Engine, Plan, Quick, plans_for
from vitrail.infer.predictor import BATCH, Predictor
from vitrail.infer.sources import Source
from vitrail.runs.folder import open_run
from vitrail.runs.proof import picture
from vitrail.tasks.multilabel import MultiLabel

CHECKED = 200
"""Pictures that a way is proven on, at most."""

SAME_TOP = 0.995
"""The least share of top answers that must be float32's."""

DRIFT = 0.05
"""How far a probability may lie from float32's; how far it did lie is said with the answers."""

QUICKER: Mapping[Engine, float] = MappingProxyType({"eager": 2.0, "compiled": 3.0, "openvino": 4.0})
"""How much quicker than plain float32 a way is held to be before it was measured."""

LIGHTER = 1.25
"""How much quicker still whole numbers are held to be."""

SETTING_UP: Mapping[Engine, float] = MappingProxyType({"eager": 0.0, "compiled": 30.0, "openvino": 8.0})
"""Seconds that setting a way up is held to take before it was measured."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured of a plan: pictures a second, seconds to set it up, and how it agreed with float32.

    `failed` says why a plan could not be tried at all.
    """

    speed: float
    setup: float
    same_top: float
    drift: float
    pictures: int
    failed: str = ""

    @property
    def faithful(self) -> bool:
        """Whether it may be used."""
        return not self.failed and self.same_top >= SAME_TOP and self.drift <= DRIFT


class Memory:
    """What was measured of one model on this machine, kept as JSON in the cache; plain float32 under its own name.

    Pictures that come one by one (`singly`) have a memory of their own: what is quickest for many need not be for one.
    """

    def __init__(self, predictor: Predictor, singly: bool = False) -> None:
        self.at_once = 1 if singly else BATCH
        said = (
            predictor.header.model_dump_json(),
            *map(_version, ("vitrail", "torch", "timm", "openvino")),  # what was proven holds for these
            torch.get_num_threads(),
            predictor.device,
            torch.cuda.get_device_name(predictor.device) if predictor.device.type == "cuda" else "",
            *((str(predictor.point),) if predictor.point != predictor.points[-1] else ()),
            torch.backends.cpu.get_cpu_capability(),
            self.at_once,
        )
        key = blake2b(repr(said).encode(), digest_size=12).hexdigest()
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
        with suppress(OSError, RunError):  # a cache that cannot be written costs the next job a measurement
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, [{"plan": asdict(p), "seen": asdict(s)} for p, s in self.seen.items()])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


class Choice(NamedTuple):
    """The plan that a job runs by, and why, in words; "" where nothing else was worth a try."""

    plan: Plan
    why: str


def quicken(
    predictor: Predictor, pictures: int, proof: Callable[[], Iterable[Pixels]], singly: bool = False
) -> Choice:
    """Let a predictor answer `pictures` pictures the quickest faithful way; `singly` where they come one by one.

    `proof` gives pictures to compare with float32 on; it is asked only where a plan was not proven before.
    """
    memory = Memory(predictor, singly)
    plans = plans_for(predictor.network, predictor.device)
    plain = _plain_speed(predictor, memory, pictures)
    shown: list[Tensor] = []
    while True:
        allowed = [plan for plan in plans if plan not in memory.seen or memory.seen[plan].faithful]
        plan = min(allowed, key=lambda one: _seconds(one, memory, pictures, plain))
        if plan == PLAIN:
            return Choice(PLAIN, _why(PLAIN, memory))
        if plan in memory.seen:
            predictor.running = _twin(predictor, plan, memory.at_once)
            return Choice(plan, _why(plan, memory))
        shown = shown or [predictor.ready(shot).pixels for shot in islice(proof(), CHECKED)]
        _measure(predictor, plan, memory, shown)
        plain = memory.seen[PLAIN].speed


def hasten(predictor: Predictor, model: str | Path, sources: Sequence[Source]) -> str:
    """Quicken a predictor for a job; returns in words how it answers, or "" where it answers as ever.

    Proven on the validation pictures of a run, or, where the model is alone, on the first pictures of the job.
    """
    if isinstance(predictor, ExportedPredictor):
        return ""  # the file says how it is computed

    def proof() -> Iterator[Pixels]:
        channels = predictor.preprocess.channels
        try:
            run = open_run(model)
            yield from readable(readers_of(run, root_of(run), (VAL,), channels, CHECKED))
        except VitrailError:  # no run, or its pictures have moved
            yield from readable(partial(predictor.decoded, one) for one in sources[:CHECKED])

    try:
        choice = quicken(predictor, len(sources), proof, singly=len(sources) == 1)
    except DataError:
        return ""  # no picture can be read at all; the answers will say so one by one
    return choice.why


def _plain_speed(predictor: Predictor, memory: Memory, pictures: int) -> float:
    """Return the pictures a second of float32: as remembered, or, for a job that is worth it, from one small batch."""
    if PLAIN in memory.seen:
        return memory.seen[PLAIN].speed
    if pictures < WORTH_A_LOOK:
        return _FIRST
    few = torch.zeros(min(4, memory.at_once), predictor.preprocess.channels, *predictor.point.size)
    seconds = [_timed(predictor, predictor.network, few)[1] for _ in range(2)]  # the first pays for set-up
    return len(few) / seconds[1]


def _seconds(plan: Plan, memory: Memory, pictures: int, plain: float) -> float:
    """Return how long a job is held to take by a plan, setting up and proving included; `plain` is float32's speed."""
    if plan in memory.seen:
        return memory.seen[plan].setup + pictures / memory.seen[plan].speed
    if plan == PLAIN:
        return pictures / plain
    quick = plain * QUICKER[plan.engine] * (LIGHTER if plan.precision == "int8" else 1)
    return SETTING_UP[plan.engine] + CHECKED * (1 / plain + 1 / quick) + pictures / quick


_FIRST = 20.0
"""Pictures a second that an unknown network is held to answer."""

WORTH_A_LOOK = 32
"""Pictures of a job from which it is worth timing a batch to guess how long the job takes."""


def _twin(predictor: Predictor, plan: Plan, at_once: int) -> Quick:
    """Return the network's twin; one out of the cache must answer the proof picture as it does, or is made anew."""
    shape = (at_once, predictor.preprocess.channels, *predictor.point.size)
    kept = _kept(predictor) if plan.engine == "openvino" else None
    quick = Quick(predictor.network, plan, shape, kept)
    if kept is not None and not _answers_the_proof(predictor, quick):
        shutil.rmtree(kept, ignore_errors=True)
        quick = Quick(predictor.network, plan, shape, kept)
    return quick


def _kept(predictor: Predictor) -> Path:
    """Return where the translation of this very model file, at this operating point, is kept."""
    with predictor.path.open("rb") as handle:
        found = file_digest(handle, lambda: blake2b(digest_size=12))
    for said in (str(predictor.point), *map(_version, ("vitrail", "torch", "openvino"))):
        found.update(said.encode())
    return cache_dir() / "fast" / f"{found.hexdigest()}.openvino"


def _answers_the_proof(predictor: Predictor, quick: Quick) -> bool:
    pixels = predictor.ready(picture(predictor.preprocess.channels)).pixels[None]
    said = [
        predictor.task.probabilities(_timed(predictor, network, pixels)[0])
        for network in (predictor.network, quick)
    ]
    return float((said[0] - said[1]).abs().max()) <= DRIFT


def _measure(predictor: Predictor, plan: Plan, memory: Memory, shown: Sequence[Tensor]) -> None:
    """Run pictures both ways and remember what was seen."""
    batches = [torch.stack(list(shown[i : i + memory.at_once])) for i in range(0, len(shown), memory.at_once)]
    wanted, times = _run(predictor, predictor.network, batches)
    if PLAIN not in memory.seen:
        memory.keep(PLAIN, Seen(_speed(batches, times), 0.0, 1.0, 0.0, len(shown)))
    try:
        if plan.engine == "openvino":
            _twin(predictor, plan, memory.at_once)  # not timed: the next job will find it translated
        began = time.perf_counter()
        quick = _twin(predictor, plan, memory.at_once)
        _timed(predictor, quick, batches[0])  # compiles
        setup = time.perf_counter() - began
        found, times = _run(predictor, quick, batches)
    except Exception as error:  # an engine may refuse a network in any way; float32 still answers
        memory.keep(plan, Seen(0.0, 0.0, 0.0, 1.0, len(shown), failed=type(error).__name__))
        return
    p, q = predictor.task.probabilities(wanted), predictor.task.probabilities(found)
    same = _same_answer(predictor, p, q).float().mean()
    memory.keep(
        plan, Seen(_speed(batches, times), setup, float(same), float((p - q).abs().max()), len(shown))
    )


def _same_answer(predictor: Predictor, p: Tensor, q: Tensor) -> Tensor:  # (b, …), (b, …) -> bool
    """Tell which answers are the same: the likeliest class, or, where labels are yes or no, every one of them."""
    if isinstance(predictor.task, MultiLabel):
        least = torch.tensor(predictor.task.thresholds())
        return ((p >= least) == (q >= least)).all(-1)
    return p.argmax(-1) == q.argmax(-1)


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
    failed = [f"{p} ({_fault(s)})" for p, s in memory.seen.items() if not s.faithful]
    left_out = f" Not used: {'; '.join(failed)}." if failed else ""
    if plan == PLAIN:
        return f"Answered in {plan}.{left_out}" if failed else ""
    seen = memory.seen[plan]
    return (
        f"Answered in {plan}: on {seen.pictures} pictures {seen.same_top:.1%} of top answers as in float32, "
        f"no probability further off than {seen.drift:.2g}.{left_out}"
    )


def _fault(seen: Seen) -> str:
    if seen.failed:
        return f"cannot run this network: {seen.failed}"
    return f"{seen.same_top:.1%} of top answers as in float32, a probability {seen.drift:.2g} off"
