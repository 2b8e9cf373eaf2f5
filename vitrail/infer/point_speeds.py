"""How quick the operating points of a model are on this machine, each with the backend that is fastest here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch

from vitrail.core.cache import keep_json
from vitrail.core.environment import cache_dir
from vitrail.data.batch import images_only
from vitrail.infer.autotune import choose_backend, request_with
from vitrail.infer.backend_cache import FORMAT, version_of
from vitrail.infer.backends import PLAIN, Backend, BackendNetwork, backends_for
from vitrail.infer.predictor import BATCH, Predictor, Request
from vitrail.infer.proof_images import Pixels, Reader, readable, spread
from vitrail.infer.timing import SETTLE, in_turn, machine
from vitrail.layers.elastic import OperatingPoint, read_point
from vitrail.models.factory import count_params

MANY = 20_000
"""Images of the job for which the backend is chosen: so many that the fastest one pays."""

ROUNDS = 5
"""Rounds in which all points take turns with a batch."""

TURNS, SINGLES = 16, 3
"""Rounds of single images, and how many images a point answers in its turn: few, so that a busy moment meets all."""

SHARE = 95
"""The latency of a point is that of this percentile of single images."""

COPIES = 6
"""Memory of a network in two backends, relative to its weights."""


@dataclass(frozen=True, slots=True)
class PointSpeed:
    """The speed of an operating point.

    `latency` and `middle`: milliseconds from a file to its prediction, one image at a time, of which 95 and 50 per cent
    take no longer; `images_per_second`: of the network alone, in batches; `backend`: with which it was measured.
    """

    latency: float
    middle: float
    images_per_second: float
    backend: Backend

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> PointSpeed:
        """Return the speed that `to_dict` wrote."""
        return cls(row["latency_ms"], row["middle_ms"], row["images_per_second"], Backend(**row["backend"]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a model file."""
        return {
            "latency_ms": round(self.latency, 3),
            "middle_ms": round(self.middle, 3),
            "images_per_second": round(self.images_per_second, 1),
            "backend": asdict(self.backend),
        }


@dataclass(frozen=True, slots=True)
class Runner:
    """A model at an operating point, ready for batches and for single images."""

    batched: Request
    single: Request

    @property
    def backend(self) -> Backend:
        """The backend of single images."""
        return self.single.backend.plan if isinstance(self.single.backend, BackendNetwork) else PLAIN


def fastest_backend(predictor: Predictor, readers: Sequence[Reader]) -> Backend:
    """Return the fastest backend of the whole network for a long job on these images.

    Not a compiled one: every point would be compiled for most of a minute, by every command. Not int8: with it, merged
    points gave another answer to every fifth image.
    """
    whole, proof = predictor.points[-1], partial(shown, readers)
    every = backends_for(predictor.network, predictor.device)
    plans = [plan for plan in every if plan.engine != "compiled" and plan.precision != "int8"]
    return choose_backend(predictor, MANY, proof, point=whole, plans=plans, scored=True).plan


def runner_at(
    predictor: Predictor, plan: Backend, point: OperatingPoint, readers: Sequence[Reader]
) -> Runner:
    """Return a model at an operating point with this backend, or in float32 where that is far off."""
    batched, single = (
        request_with(predictor, plan, point, partial(shown, readers), singly) for singly in (False, True)
    )
    return Runner(batched, single)


def shown(readers: Sequence[Reader], count: int) -> Iterator[Pixels]:
    """Yield so many images, evenly spaced, for the check of a backend."""
    return readable(spread(readers, count))


def measure_speeds(
    predictor: Predictor, runners: Mapping[OperatingPoint, Runner], readers: Sequence[Reader]
) -> dict[OperatingPoint, PointSpeed]:
    """Return the speed of every operating point; all take turns, so that a busy moment meets all alike."""
    images = list(readable(spread(readers, BATCH)))
    batches = {str(point): _batch(predictor, point, runner, images) for point, runner in runners.items()}
    rates = in_turn(batches, ROUNDS, warmup=1)
    times = _singles(predictor, runners, spread(readers, TURNS * SINGLES))
    return {
        point: PointSpeed(
            1000 * float(np.percentile(times[str(point)], SHARE)),
            1000 * median(times[str(point)]),
            len(images) / median(rates[str(point)]),
            runner.backend,
        )
        for point, runner in runners.items()
    }


def _batch(
    predictor: Predictor, point: OperatingPoint, runner: Runner, images: Sequence[Pixels]
) -> Callable[[], object]:
    batch = images_only(torch.stack([predictor.ready(image, point).pixels for image in images]))
    return lambda: predictor.run(batch, runner.batched)


def _singles(
    predictor: Predictor, runners: Mapping[OperatingPoint, Runner], readers: Sequence[Reader]
) -> dict[str, list[float]]:
    """Return seconds from file to prediction, image by image, of every point by name."""
    times: dict[str, list[float]] = {str(point): [] for point in runners}
    turns = {point: cycle(readers) for point in runners}
    for number in range(TURNS + 1):  # the first round warms up
        for point, runner in runners.items():
            time.sleep(SETTLE)
            for _ in range(SINGLES):
                began = time.perf_counter()
                predictor.predict([next(turns[point])()], runner.single)
                if number:
                    times[str(point)].append(time.perf_counter() - began)
    return times


def groups(predictor: Predictor, points: Sequence[OperatingPoint]) -> Iterator[Sequence[OperatingPoint]]:
    """Yield the points in groups whose networks fit into half of the free memory: usually all at once."""
    each = COPIES * 4 * count_params(predictor.network)
    step = max(1, int(psutil.virtual_memory().available / 2 / each))
    yield from (points[start : start + step] for start in range(0, len(points), step))


def place_of(predictor: Predictor) -> str:
    """Return what speeds are valid for: the machine, and the device of the model."""
    return f"{machine()}, on {predictor.device.type}"


def speeds_here(
    predictor: Predictor, readers: Sequence[Reader], say: Callable[[str], None], *, again: bool = False
) -> dict[str, PointSpeed]:
    """Return the speeds of measured operating points on this machine, by name.

    Those of the model file, if they were measured here. Otherwise the points that no other one beats, and the whole
    network, are timed, which is said, and kept in the cache; `again` times them in any case.
    """
    rows, here = predictor.header.points, place_of(predictor)
    if not again and all(row.get("machine") == here for row in rows):
        return {row["point"]: PointSpeed.of(row) for row in rows}
    whole = str(predictor.points[-1])
    names = [row["point"] for row in rows if not row["beaten_by"] or row["point"] == whole]
    identity = repr((predictor.header.proof, names, here, FORMAT, *map(version_of, ("vitrail", "openvino"))))
    path = cache_dir() / "points" / f"{blake2b(identity.encode(), digest_size=12).hexdigest()}.json"
    if not again and (kept := _kept(path)):
        return kept
    say(f"Timing {len(names)} operating points here ({here}); this is done once.")
    found: dict[str, PointSpeed] = {}
    plan = fastest_backend(predictor, readers)
    for some in groups(predictor, [read_point(name) for name in names]):
        runners = {point: runner_at(predictor, plan, point, readers) for point in some}
        speeds = measure_speeds(predictor, runners, readers)
        found |= {str(point): speed for point, speed in speeds.items()}
    keep_json(path, {name: speed.to_dict() for name, speed in found.items()})
    return found


def _kept(path: Path) -> dict[str, PointSpeed]:
    """Return speeds from the cache; empty if there are none, or of another version."""
    try:
        return {
            name: PointSpeed.of(row) for name, row in json.loads(path.read_text(encoding="utf-8")).items()
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}
