"""The fastest backend that answers like float32 on this machine: chosen by the length of the job, proven, cached.

A backend is used only after its outputs agreed with float32 on images of the run (`vitrail.infer.backend_check`). The
time of that check and of compiling is weighed against the time saved, and both stay in the cache for the next job.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from hashlib import blake2b, file_digest
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch

from vitrail.core.cache import keep_json
from vitrail.core.environment import cache_dir
from vitrail.core.errors import DataError, VitrailError
from vitrail.data.manifest import VAL
from vitrail.infer.backend_check import LOOKED_AT, SPREAD, BackendResult, Shown, measured, proof_answer, timed
from vitrail.infer.backends import PLAIN, Backend, BackendNetwork, Engine, backends_for
from vitrail.infer.exported_predictor import ExportedPredictor
from vitrail.infer.inputs import Source
from vitrail.infer.predictor import BATCH, Predictor, Request
from vitrail.infer.proof_images import Pixels, readable, readers_of, root_of, spread
from vitrail.infer.quantize_int8 import Scales, keep_ranges, read_ranges
from vitrail.layers.elastic import OperatingPoint
from vitrail.runs.proof import drift
from vitrail.runs.run import open_run

QUICKER: Mapping[Engine, float] = MappingProxyType({"eager": 2.0, "compiled": 3.0, "openvino": 4.0})
"""How much quicker than plain float32 a way is held to be before it was measured."""

LIGHTER = 1.5
"""How much quicker still whole numbers are held to be."""

AGAIN = 0.01
"""How far a proven way may answer the proof image from how it did, on the same machine."""

FORMAT = 5
"""Counts up when plans are made otherwise: what was proven before proves nothing then."""

SETTING_UP: Mapping[Engine, float] = MappingProxyType({"eager": 0.0, "compiled": 30.0, "openvino": 8.0})
"""Seconds that setting a way up is held to take before it was measured."""


class BackendCache:
    """What was measured of one model on this machine, kept as JSON in the cache; plain float32 under its own name.

    Images that come one by one (`singly`) have a memory of their own: what is quickest for many need not be for one.
    """

    def __init__(
        self, predictor: Predictor, point: OperatingPoint | None = None, singly: bool = False
    ) -> None:
        self.point = point or predictor.point
        self.at_once = 1 if singly else BATCH
        said = (
            predictor.header.model_dump_json(),
            *map(_version, ("vitrail", "torch", "timm", "openvino")),  # what was proven holds for these
            torch.get_num_threads(),
            predictor.device,
            torch.cuda.get_device_name(predictor.device) if predictor.device.type == "cuda" else "",
            *((str(self.point),) if self.point != predictor.points[-1] else ()),
            torch.backends.cpu.get_cpu_capability(),
            self.at_once,
            FORMAT,
        )
        key = blake2b(repr(said).encode(), digest_size=12).hexdigest()
        self.path: Path = cache_dir() / "fast" / f"{key}.json"
        self.scales: Path = self.path.with_suffix(".scales.safetensors")
        self.seen: dict[Backend, BackendResult] = {}
        try:
            for row in json.loads(self.path.read_text(encoding="utf-8")):
                self.seen[Backend(**row["plan"])] = BackendResult(
                    **row["seen"] | {"answer": tuple(row["seen"]["answer"])}
                )
        except (OSError, ValueError, KeyError, TypeError):
            self.seen = {}  # nothing, or of another version: it is measured again

    def keep(self, plan: Backend, seen: BackendResult) -> None:
        """Remember a plan."""
        self.seen[plan] = seen
        lasting = ((p, s) for p, s in self.seen.items() if not s.passing)
        keep_json(self.path, [{"plan": asdict(p), "seen": asdict(s)} for p, s in lasting])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


class Choice(NamedTuple):
    """The plan that a job runs by, why, in words ("" where nothing else was worth a try), and the request for it."""

    plan: Backend
    why: str
    request: Request


def choose_backend(
    predictor: Predictor,
    pictures: int,
    proof: Callable[[], Iterable[Pixels]],
    singly: bool = False,
    point: OperatingPoint | None = None,
) -> Choice:
    """Return the quickest faithful way to answer `pictures` images; `singly` where they come one by one.

    `proof` gives images to compare with float32 on, and for int8 to learn from; it is asked only where a plan was not
    proven before, or is not known again. `point` is an operating point of the model (None: the predictor's own).
    """
    memory = BackendCache(predictor, point, singly)
    # An engine computes a network of images alone.
    images = predictor.task.inputs == ("images",)
    plans = backends_for(predictor.network, predictor.device) if images else [PLAIN]
    plain = plain_speed(predictor, memory, pictures)
    shown = Shown(predictor, memory.point, proof, memory.at_once)
    proven: dict[Backend, BackendNetwork] = {}
    while True:
        allowed = [plan for plan in plans if plan not in memory.seen or memory.seen[plan].faithful]
        plan = min(allowed, key=lambda one: _seconds(one, memory, pictures, plain))
        if plan == PLAIN:
            return Choice(PLAIN, _why(PLAIN, memory), Request(memory.point))
        quick = proven.get(plan) or _known_again(predictor, plan, memory)
        if quick is not None:
            why = " ".join([_why(plan, memory), *quick.kept_in_float32()])
            return Choice(plan, why, Request(memory.point, quick))
        if PLAIN not in memory.seen:
            memory.keep(PLAIN, shown.plain)
            plain = memory.seen[PLAIN].speed
        scales = Scales(shown.learnt)
        seen, quick = measured(plan, partial(_twin, predictor, plan, memory, scales), shown)
        if quick is not None:
            proven[plan] = quick
            if scales.known:
                keep_ranges(memory.scales, scales.known)
        memory.keep(plan, replace(seen, scales=scales.digest()))


def speed_up(
    predictor: Predictor, model: str | Path, sources: Sequence[Source], point: OperatingPoint | None = None
) -> Choice:
    """Return the quickest faithful way to answer a job; its `why` is "" where it is answered as ever.

    Proven on the validation images of a run, or, where the model is alone, on images of the job.
    """
    plain = Choice(PLAIN, "", Request(point or predictor.point))
    if isinstance(predictor, ExportedPredictor) or predictor.preprocess.zoom is not None:
        return plain  # the file says how it is computed; windows of one image are a batch already

    def proof() -> Iterator[Pixels]:
        steps = predictor.preprocess
        try:
            run = open_run(model)
            yield from readable(readers_of(run, root_of(run), (VAL,), steps, LOOKED_AT))
        except VitrailError:  # no run, or its images have moved
            yield from readable(partial(predictor.decoded, one) for one in spread(sources, LOOKED_AT))

    try:
        return choose_backend(predictor, len(sources), proof, singly=len(sources) == 1, point=point)
    except DataError:
        return plain  # no image can be read at all; the answers will say so one by one


def plain_speed(predictor: Predictor, memory: BackendCache, pictures: int) -> float:
    """Return the images a second of float32: as remembered, or, for a job that is worth it, from one small batch."""
    if PLAIN in memory.seen:
        return memory.seen[PLAIN].speed
    if pictures < WORTH_A_LOOK:
        return FIRST_SPEED
    few = torch.zeros(min(4, memory.at_once), predictor.preprocess.channels, *memory.point.size)
    seconds = [timed(predictor, Request(memory.point), few)[1] for _ in range(2)]  # the first pays for set-up
    return len(few) / seconds[1]


def _seconds(plan: Backend, memory: BackendCache, pictures: int, plain: float) -> float:
    """Return how long a job is held to take by a plan, setting up and proving included; `plain` is float32's speed."""
    if plan in memory.seen:
        return memory.seen[plan].setup + pictures / memory.seen[plan].speed
    if plan == PLAIN:
        return pictures / plain
    quick = plain * QUICKER[plan.engine] * (LIGHTER if plan.precision == "int8" else 1)
    return SETTING_UP[plan.engine] + LOOKED_AT * (1 / plain + 1 / quick) + pictures / quick


FIRST_SPEED = 20.0
"""Images a second that an unknown network is held to answer."""

WORTH_A_LOOK = 32
"""Images of a job from which it is worth timing a batch to guess how long the job takes."""


def _twin(predictor: Predictor, plan: Backend, memory: BackendCache, scales: Scales) -> BackendNetwork:
    shape = (memory.at_once, predictor.preprocess.channels, *memory.point.size)
    kept = _kept(predictor, memory.point) if plan.engine == "openvino" else None
    return BackendNetwork(predictor.at(memory.point), plan, shape, kept, scales)


def _known_again(predictor: Predictor, plan: Backend, memory: BackendCache) -> BackendNetwork | None:
    """Return the twin that was proven, or None where none was, or what the cache gives is not it any more."""
    if plan not in memory.seen:
        return None
    scales = Scales(known=read_ranges(memory.scales) if plan.precision == "int8" else None)
    if scales.digest() != memory.seen[plan].scales:
        return None
    try:
        quick = _twin(predictor, plan, memory, scales)
        apart = drift([*memory.seen[plan].answer], proof_answer(predictor, Request(memory.point, quick)))
    except Exception:  # whatever the cache has become, there is another way
        return None
    return quick if apart <= AGAIN else None


def _kept(predictor: Predictor, point: OperatingPoint) -> Path:
    """Return where the translation of this very model file, at this operating point, is kept."""
    with predictor.path.open("rb") as handle:
        found = file_digest(handle, lambda: blake2b(digest_size=12))
    for said in (str(FORMAT), str(point), *map(_version, ("vitrail", "torch", "openvino"))):
        found.update(said.encode())
    return cache_dir() / "fast" / f"{found.hexdigest()}.openvino"


def _why(plan: Backend, memory: BackendCache) -> str:
    failed = [f"{p} ({_fault(s)})" for p, s in memory.seen.items() if not s.faithful]
    left_out = f" Not used: {'; '.join(failed)}." if failed else ""
    if plan == PLAIN:
        return f"Answered in {plan}.{left_out}" if failed else ""
    seen = memory.seen[plan]
    return (
        f"Answered in {plan}: on {seen.pictures} images {seen.same_top:.1%} of top answers as in float32, "
        f"no probability further off than {seen.drift:.2g}.{left_out}"
    )


def _fault(seen: BackendResult) -> str:
    if seen.failed:
        return f"cannot run this network: {seen.failed}"
    said = f"{seen.same_top:.1%} of top answers as in float32, a probability {seen.drift:.2g} off"
    return said if seen.off <= SPREAD else f"{said}, outputs {seen.off:.0%} off of how far images differ"
