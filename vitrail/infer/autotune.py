"""Choose the fastest backend whose predictions agree with float32 on this machine, and cache the result.

A backend is used only after its outputs agreed with float32 on images of the run (`vitrail.infer.backend_check`). The
time for this check and for compilation is compared with the time that the job saves. Both are cached for the next job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from vitrail.core.errors import DataError, VitrailError
from vitrail.data.manifest import VAL
from vitrail.infer.backend_cache import BackendCache, translation_path
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
from vitrail.infer.backend_costs import FEWEST_PROOF_IMAGES, Job, needs_no_proof, proof_size
from vitrail.infer.backends import PLAIN, Backend, BackendNetwork, backends_for
from vitrail.infer.exported_predictor import ExportedPredictor
from vitrail.infer.inputs import Source
from vitrail.infer.predictor import Predictor, Request
from vitrail.infer.proof_images import Pixels, readable, readers_of, root_of, spread
from vitrail.infer.quantize_int8 import Scales, keep_ranges, read_ranges
from vitrail.layers.elastic import OperatingPoint
from vitrail.runs.proof import drift
from vitrail.runs.run import open_run

RECHECK_TOLERANCE = 0.01
"""Largest allowed change of a cached backend's output on the proof image, on the same machine."""

MIN_IMAGES_TO_TIME = 32
"""Smallest job, in images, for which eager backends are timed on a small batch."""


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
    plans: Sequence[Backend] | None = None,
    scored: bool = False,
) -> Choice:
    """Return the fastest faithful backend for `pictures` images; `singly` if they are processed one by one.

    `proof` returns so many images for the comparison with float32 and for int8 calibration. It is called only if a
    backend is not in the cache, or no longer gives its cached output. `point` is an operating point of the model (None:
    the default of the predictor), `plans` are the backends to choose from (None: all). `scored` says that the score of
    the point is or will be measured with the backend, which is then checked for gross errors only.
    """
    memory = BackendCache(
        predictor, point, singly, scored or is_measured(predictor, point or predictor.point)
    )
    # Other engines only support networks whose single input is `images`.
    images = predictor.task.inputs == ("images",)
    if plans is None or not images:
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
        network = proven.get(plan) or load_cached(predictor, plan, memory, job)
        if network is not None:
            why = " ".join([_why(plan, memory), *network.kept_in_float32()])
            return Choice(plan, why, Request(memory.point, network))
        network = checked(predictor, plan, memory, job, proof_images)
        if network is not None:
            proven[plan] = network


def checked(
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
    result, network = check_backend(plan, make, proof_images, memory.scored)
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

    proof = partial(proof_pixels, predictor, model, sources)
    try:
        return choose_backend(predictor, len(sources), proof, singly=len(sources) == 1, point=point)
    except DataError:
        return plain  # no image can be read; every answer will report its own error


def proof_pixels(
    predictor: Predictor, model: str | Path, sources: Sequence[Source], count: int
) -> Iterator[Pixels]:
    """Yield images for a check: validation images of the run, or of the job if there is no run with its images."""
    try:
        run = open_run(model)
        yield from readable(readers_of(run, root_of(run), (VAL,), predictor.preprocess, count))
    except VitrailError:  # no run, or its images were moved
        yield from readable(partial(predictor.decoded, one) for one in spread(sources, count))


def is_measured(predictor: Predictor, point: OperatingPoint) -> bool:
    """Tell whether the score of a cheaper operating point is known, as it was measured with a backend."""
    rows = (row for row in predictor.header.points if row["point"] == str(point))
    return point != predictor.points[-1] and any("backend" in row for row in rows)


def request_with(
    predictor: Predictor,
    plan: Backend,
    point: OperatingPoint,
    proof: Callable[[int], Iterable[Pixels]],
    singly: bool = False,
    any_number: bool = False,
) -> Request:
    """Return a request with this backend at an operating point, or with float32 where it is not faithful.

    `singly`: for single images; `any_number`: for batches of any size, as a server computes them. For callers that
    measure the score of the point with this backend, or have done so. It is checked on few images, as for a short job,
    unless the cache knows it.
    """
    memory = BackendCache(predictor, point, singly, scored=True, any_number=any_number)
    few = FEWEST_PROOF_IMAGES
    job = Job(few, memory.valid_for(few), memory.speeds())
    if plan == PLAIN or (plan in job.seen and not job.seen[plan].faithful):
        return Request(point)
    network = load_cached(predictor, plan, memory, job)
    if network is None:
        shown = Shown(predictor, point, partial(proof, few), memory.at_once)
        network = checked(predictor, plan, memory, job, shown)
    return Request(point, network)


def eager_speeds(
    predictor: Predictor, memory: BackendCache, plans: Sequence[Backend], pictures: int
) -> Mapping[Backend, float]:
    """Return images/s of the eager backends that are not in the cache, timed on a small batch; {} for short jobs."""
    if pictures < MIN_IMAGES_TO_TIME:
        return {}
    few = torch.zeros(min(4, memory.at_once), *predictor.network.spec.shape(memory.point.size))
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
    shape = (memory.at_once, *predictor.network.spec.shape(memory.point.size))
    kept = translation_path(predictor, memory.point) if plan.engine == "openvino" else None
    return BackendNetwork(predictor.at(memory.point), plan, shape, kept, scales, memory.any_number)


def load_cached(predictor: Predictor, plan: Backend, memory: BackendCache, job: Job) -> BackendNetwork | None:
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
