"""Choose the fastest backend whose predictions agree with float32 on this machine, and cache the result.

A backend is used only after its outputs agreed with float32 on images of the run (`vitrail.infer.backend_check`). The
time for this check and for compilation is compared with the time that the job saves. Both are cached for the next job.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from hashlib import blake2b, file_digest
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch

from vitrail.core.cache import keep_json
from vitrail.core.environment import cache_dir
from vitrail.core.errors import DataError, VitrailError
from vitrail.data.manifest import VAL
from vitrail.infer.backend_check import (
    SPREAD,
    BackendResult,
    Shown,
    check_backend,
    compare_proof,
    failure,
    proof_answer,
    timed,
)
from vitrail.infer.backend_costs import Job, needs_no_proof, proof_size
from vitrail.infer.backends import PLAIN, Backend, BackendNetwork, backends_for
from vitrail.infer.exported_predictor import ExportedPredictor
from vitrail.infer.inputs import Source
from vitrail.infer.predictor import BATCH, Predictor, Request
from vitrail.infer.proof_images import Pixels, readable, readers_of, root_of, spread
from vitrail.infer.quantize_int8 import Scales, keep_ranges, read_ranges
from vitrail.layers.elastic import OperatingPoint
from vitrail.runs.proof import drift
from vitrail.runs.run import open_run

RECHECK_TOLERANCE = 0.01
"""Largest allowed change of a cached backend's output on the proof image, on the same machine."""

FORMAT = 6
"""Cache format version. Increase it when backends change, to invalidate old measurements."""

MIN_IMAGES_TO_TIME = 32
"""Smallest job, in images, for which eager backends are timed on a small batch."""


class BackendCache:
    """Measurements of one model on this machine, stored as JSON in the cache; plain float32 is one of the entries.

    Single images (`singly`) have their own cache entry: the fastest backend for a batch may not be the fastest for one.
    """

    def __init__(
        self, predictor: Predictor, point: OperatingPoint | None = None, singly: bool = False
    ) -> None:
        self.point = point or predictor.point
        self.at_once = 1 if singly else BATCH
        identity = (
            predictor.header.model_dump_json(),
            *map(
                _version, ("vitrail", "torch", "timm", "openvino")
            ),  # the measurements are valid for these versions only
            torch.get_num_threads(),
            predictor.device,
            torch.cuda.get_device_name(predictor.device) if predictor.device.type == "cuda" else "",
            *((str(self.point),) if self.point != predictor.points[-1] else ()),
            torch.backends.cpu.get_cpu_capability(),
            self.at_once,
            FORMAT,
        )
        key = blake2b(repr(identity).encode(), digest_size=12).hexdigest()
        self.path: Path = cache_dir() / "fast" / f"{key}.json"
        self.scales: Path = self.path.with_suffix(".scales.safetensors")
        self.seen: dict[Backend, BackendResult] = {}
        try:
            for row in json.loads(self.path.read_text(encoding="utf-8")):
                self.seen[Backend(**row["plan"])] = BackendResult(
                    **row["seen"] | {"answer": tuple(row["seen"]["answer"])}
                )
        except (OSError, ValueError, KeyError, TypeError):
            self.seen = {}  # missing, or written by another version: measure again

    def valid_for(self, pictures: int) -> dict[Backend, BackendResult]:
        """Return the results that are valid for a job: those of a check on at least as many images as it deserves.

        A backend that could not run, or was far off, is not checked again on more images.
        """
        wanted = proof_size(pictures)
        return {
            plan: seen
            for plan, seen in self.seen.items()
            if plan == PLAIN or seen.wanted >= wanted or seen.hopeless
        }

    def speeds(self) -> dict[Backend, float]:
        """Return images/s of the backends that were measured, for whatever job."""
        return {plan: seen.speed for plan, seen in self.seen.items() if not seen.failed}

    def keep(self, plan: Backend, seen: BackendResult) -> None:
        """Store the measurement of a backend; results that failed for a passing reason are not written to disk."""
        self.seen[plan] = seen
        lasting = ((p, s) for p, s in self.seen.items() if not s.passing)
        keep_json(self.path, [{"plan": asdict(p), "seen": asdict(s)} for p, s in lasting])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


class Choice(NamedTuple):
    """The chosen backend, the reason ("" where no other backend was worth measuring), and the request to use."""

    plan: Backend
    why: str
    request: Request


def choose_backend(
    predictor: Predictor,
    pictures: int,
    proof: Callable[[int], Iterable[Pixels]],
    singly: bool = False,
    point: OperatingPoint | None = None,
) -> Choice:
    """Return the fastest faithful backend for `pictures` images; `singly` if they are processed one by one.

    `proof` returns so many images for the comparison with float32 and for int8 calibration. It is called only if a
    backend is not in the cache, or no longer gives its cached output. `point` is an operating point of the model (None:
    the default of the predictor).
    """
    memory = BackendCache(predictor, point, singly)
    # Other engines only support networks whose single input is `images`.
    images = predictor.task.inputs == ("images",)
    plans = backends_for(predictor.network, predictor.device) if images else [PLAIN]
    timed_speeds = eager_speeds(predictor, memory, plans, pictures)
    proof_images = Shown(predictor, memory.point, partial(proof, proof_size(pictures)), memory.at_once)
    proven: dict[Backend, BackendNetwork] = {}
    lower = any(plan.engine == "eager" and not needs_no_proof(plan) for plan in plans)
    while True:
        job = Job(pictures, memory.valid_for(pictures), {**memory.speeds(), **timed_speeds}, lower)
        plan = min(allowed(plans, job), key=job.seconds)
        if plan == PLAIN:
            return Choice(PLAIN, _why(PLAIN, memory), Request(memory.point))
        network = proven.get(plan) or _load_cached(predictor, plan, memory, job)
        if network is not None:
            why = " ".join([_why(plan, memory), *network.kept_in_float32()])
            return Choice(plan, why, Request(memory.point, network))
        network = _check(predictor, plan, memory, job, proof_images)
        if network is not None:
            proven[plan] = network


def _check(
    predictor: Predictor, plan: Backend, memory: BackendCache, job: Job, proof_images: Shown
) -> BackendNetwork | None:
    """Measure a backend and store the result; return its network if it may be used."""
    scales = Scales(proof_images.learnt)
    make = partial(_backend_network, predictor, plan, memory, scales)
    if needs_no_proof(plan):
        try:
            exact = make()
            result = compare_proof(predictor, Request(memory.point, exact), job.expected(plan))
        except Exception as error:  # an engine may fail in any way; float32 still works
            memory.keep(plan, failure(error))
            return None
        memory.keep(plan, result)
        return exact if result.faithful else None
    if PLAIN not in job.seen:
        memory.keep(PLAIN, proof_images.plain)
    result, network = check_backend(plan, make, proof_images)
    if network is not None and scales.known:
        keep_ranges(memory.scales, scales.known)
    memory.keep(plan, replace(result, scales=scales.digest(), wanted=job.proof))
    return network


def allowed(plans: Sequence[Backend], job: Job) -> list[Backend]:
    """Return the backends that may be used or checked: int8 only after what is more exact was measured."""
    allowed = [plan for plan in plans if plan not in job.seen or job.seen[plan].faithful]
    exact = [plan for plan in plans if plan.engine == "openvino" and plan.precision != "int8"]
    waits = any(plan not in job.seen for plan in exact)
    return [plan for plan in allowed if plan.precision != "int8" or plan in job.seen or not waits]


def speed_up(
    predictor: Predictor, model: str | Path, sources: Sequence[Source], point: OperatingPoint | None = None
) -> Choice:
    """Return the fastest faithful backend for a job; its `why` is "" if plain float32 is used without a check.

    The check uses the validation images of the run, or the images of the job if only a model file is given.
    """
    plain = Choice(PLAIN, "", Request(point or predictor.point))
    if isinstance(predictor, ExportedPredictor) or predictor.preprocess.zoom is not None:
        return plain  # an exported file has its own runtime; windows of one image are already a batch

    def proof(count: int) -> Iterator[Pixels]:
        steps = predictor.preprocess
        try:
            run = open_run(model)
            yield from readable(readers_of(run, root_of(run), (VAL,), steps, count))
        except VitrailError:  # no run, or its images were moved
            yield from readable(partial(predictor.decoded, one) for one in spread(sources, count))

    try:
        return choose_backend(predictor, len(sources), proof, singly=len(sources) == 1, point=point)
    except DataError:
        return plain  # no image can be read; every answer will report its own error


def eager_speeds(
    predictor: Predictor, memory: BackendCache, plans: Sequence[Backend], pictures: int
) -> Mapping[Backend, float]:
    """Return images/s of the eager backends that are not in the cache, timed on a small batch; {} for short jobs."""
    if pictures < MIN_IMAGES_TO_TIME:
        return {}
    few = torch.zeros(min(4, memory.at_once), predictor.preprocess.channels, *memory.point.size)
    speeds = {}
    for plan in plans:
        if plan.engine != "eager" or plan in memory.seen:
            continue
        try:
            network = None if plan == PLAIN else _backend_network(predictor, plan, memory, Scales())
            request = Request(memory.point, network)
            seconds = [timed(predictor, request, few)[1] for _ in range(3)]  # the first call includes setup
        except Exception as error:  # an operation may lack this precision; float32 still works
            if plan == PLAIN:
                raise
            memory.keep(plan, failure(error))
            continue
        speeds[plan] = len(few) / min(seconds[1:])
    return speeds


def _backend_network(
    predictor: Predictor, plan: Backend, memory: BackendCache, scales: Scales
) -> BackendNetwork:
    shape = (memory.at_once, predictor.preprocess.channels, *memory.point.size)
    kept = _translation_path(predictor, memory.point) if plan.engine == "openvino" else None
    return BackendNetwork(predictor.at(memory.point), plan, shape, kept, scales)


def _load_cached(
    predictor: Predictor, plan: Backend, memory: BackendCache, job: Job
) -> BackendNetwork | None:
    """Return the backend network that passed the check before, or None if there is none or its output changed."""
    if plan not in job.seen:
        return None
    scales = Scales(known=read_ranges(memory.scales) if plan.precision == "int8" else None)
    if scales.digest() != memory.seen[plan].scales:
        return None
    try:
        network = _backend_network(predictor, plan, memory, scales)
        apart = drift([*memory.seen[plan].answer], proof_answer(predictor, Request(memory.point, network)))
    except Exception:  # a damaged cache must never stop a job: measure again
        return None
    return network if apart <= RECHECK_TOLERANCE else None


def _translation_path(predictor: Predictor, point: OperatingPoint) -> Path:
    """Return the cache path of the OpenVINO translation of this model file at this operating point."""
    with predictor.path.open("rb") as handle:
        digest = file_digest(handle, lambda: blake2b(digest_size=12))
    for part in (str(FORMAT), str(point), *map(_version, ("vitrail", "torch", "openvino"))):
        digest.update(part.encode())
    return cache_dir() / "fast" / f"{digest.hexdigest()}.openvino"


def _why(plan: Backend, memory: BackendCache) -> str:
    failed = [f"{p} ({_fault(s)})" for p, s in memory.seen.items() if not s.faithful]
    left_out = f" Not used: {'; '.join(failed)}." if failed else ""
    if plan == PLAIN:
        return f"Answered in {plan}.{left_out}" if failed else ""
    if needs_no_proof(plan):
        return f"Answered in {plan}.{left_out}"
    result = memory.seen[plan]
    return (
        f"Answered in {plan}: on {result.pictures} images {result.same_top:.1%} of top answers as in float32, "
        f"largest difference of a probability {result.drift:.2g}.{left_out}"
    )


def _fault(result: BackendResult) -> str:
    if result.failed:
        return result.failed
    fault = f"{result.same_top:.1%} of top answers as in float32, a probability differs by {result.drift:.2g}"
    if result.off > SPREAD:
        fault += f", outputs differ by {result.off:.0%} of the difference between images"
    return fault
