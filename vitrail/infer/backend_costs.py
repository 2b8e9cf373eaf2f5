"""Estimate what a job costs with each backend: from measurements, from a small timed batch, or by assumption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from vitrail.infer.backend_check import PROOF_IMAGES, BackendResult
from vitrail.infer.backends import PLAIN, Backend, Engine
from vitrail.runs.device import bf16_unit

FEWEST_PROOF_IMAGES = 48
"""Images of the check for a short job; a longer one is checked on a quarter of its images, at most `PROOF_IMAGES`."""

ASSUMED_SPEED = 20.0
"""Assumed images/s of a network that was never measured."""

EAGER_SPEEDUP = 2.0
"""Assumed speedup of a lower precision over float32 before it is timed."""

EXPECTED_SPEEDUP: Mapping[Engine, float] = MappingProxyType({"eager": 1.0, "compiled": 1.3, "openvino": 1.5})
"""Assumed speedup of an engine over the fastest eager backend before it is measured."""

INT8_SPEEDUP = 1.5
"""Assumed speedup of int8 over the same engine in bf16 before it is measured."""

INT8_WITH_AMX = 1.1
"""The same where AMX multiplies bf16 matrices."""

SETUP_SECONDS: Mapping[Engine, float] = MappingProxyType({"eager": 0.5, "compiled": 30.0, "openvino": 8.0})
"""Assumed setup time of a backend, in seconds, before it is measured."""

WAIT = 3.0
"""Seconds that a check has to save in addition to its own: until it ends, the user sees no answer."""

INT8_PAYS = 0.9
"""int8 is used only if the job takes at most this fraction of the time: it is the least exact backend."""


def proof_size(images: int) -> int:
    """Return the number of images on which a backend is compared with float32 for a job of so many images."""
    return min(PROOF_IMAGES, max(FEWEST_PROOF_IMAGES, images // 4))


def needs_no_proof(plan: Backend) -> bool:
    """Whether a backend computes what float32 computes, in another memory format at most."""
    return plan.precision == "float32" and plan.engine == "eager"


@dataclass(frozen=True, slots=True)
class Job:
    """A job: its number of images, the results that are valid for it, and images/s by timing or for other jobs."""

    images: int
    seen: Mapping[Backend, BackendResult]
    timed: Mapping[Backend, float]
    eager: bool = True  # whether there is an eager backend in a lower precision

    @property
    def proof(self) -> int:
        """The number of images of a check."""
        return proof_size(self.images)

    @property
    def speeds(self) -> Mapping[Backend, float]:
        """Images/s of the backends that were timed or measured."""
        return {**self.timed, **{plan: seen.speed for plan, seen in self.seen.items() if not seen.failed}}

    @property
    def plain(self) -> float:
        """Images/s of float32."""
        return self.speeds.get(PLAIN, ASSUMED_SPEED)

    def seconds(self, plan: Backend) -> float:
        """Return the expected seconds of the job with a backend, including setup and check."""
        if plan == PLAIN:
            return self.images / self.plain
        if plan in self.seen:
            result = self.seen[plan]
            seconds = result.setup + self.images / result.speed
            return seconds / INT8_PAYS if plan.precision == "int8" else seconds
        speed = self.expected(plan)
        if needs_no_proof(plan):
            return self.images / speed
        check = self.proof * (1 / self.plain + 1 / speed)
        return WAIT + SETUP_SECONDS[plan.engine] + check + self.images / speed

    def expected(self, plan: Backend) -> float:
        """Return the images/s that a backend is expected to reach before it is measured for this job."""
        speeds = self.speeds
        if plan in speeds:
            return speeds[plan]
        if plan.engine == "eager":
            return self.plain * (1 if needs_no_proof(plan) else EAGER_SPEEDUP)
        speed = EXPECTED_SPEEDUP[plan.engine] * self._fastest_eager()
        if plan.precision != "int8":
            return speed
        measured = [images for one, images in speeds.items() if one.engine == plan.engine]
        amx = bf16_unit(torch.device("cpu")) == "amx_bf16"
        return (INT8_WITH_AMX if amx else INT8_SPEEDUP) * max(measured, default=speed)

    def _fastest_eager(self) -> float:
        """Return the highest images/s of an eager backend, measured or timed, or else assumed."""
        known = [images for plan, images in self.speeds.items() if plan.engine == "eager"]
        assumed = (EAGER_SPEEDUP if self.eager and len(known) < 2 else 1) * self.plain
        return max([*known, assumed])
