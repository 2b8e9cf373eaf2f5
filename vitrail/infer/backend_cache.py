"""Measurements of the backends of a model on this machine, and their translations, in the cache."""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import blake2b, file_digest
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from vitrail.core.cache import keep_json
from vitrail.core.environment import cache_dir
from vitrail.infer.backend_check import BackendResult
from vitrail.infer.backend_costs import proof_size
from vitrail.infer.backends import PLAIN, Backend
from vitrail.infer.predictor import BATCH, Predictor
from vitrail.layers.elastic import OperatingPoint

FORMAT = 7
"""Cache format version. Increase it when backends change, to invalidate old measurements."""


def _header_of(predictor: Predictor) -> str:
    """Return the header of a model file without its measured operating points."""
    return predictor.header.model_copy(update={"points": []}).model_dump_json()


class BackendCache:
    """Measurements of one model on this machine, stored as JSON in the cache; plain float32 is one of the entries.

    Single images (`singly`) have their own cache entry: the fastest backend for a batch may not be the fastest for one.
    So have points that are scored with the backend itself (`scored`), whose check is less strict, and backends for any
    number of images (`any_number`).
    """

    def __init__(
        self,
        predictor: Predictor,
        point: OperatingPoint | None = None,
        singly: bool = False,
        scored: bool = False,
        any_number: bool = False,
    ) -> None:
        self.point, self.scored, self.any_number = point or predictor.point, scored, any_number
        self.at_once = 1 if singly else BATCH
        identity = (
            _header_of(predictor),
            *map(
                version_of, ("vitrail", "torch", "timm", "openvino")
            ),  # the measurements are valid for these versions only
            torch.get_num_threads(),
            predictor.device,
            torch.cuda.get_device_name(predictor.device) if predictor.device.type == "cuda" else "",
            *((str(self.point),) if self.point != predictor.points[-1] else ()),
            torch.backends.cpu.get_cpu_capability(),
            self.at_once,
            scored,
            *(("any number",) if any_number else ()),
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


def version_of(package: str) -> str:
    """Return the version of an installed package, "" if there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def translation_path(predictor: Predictor, point: OperatingPoint) -> Path:
    """Return the cache path of the OpenVINO translation of this model file at this operating point."""
    with predictor.path.open("rb") as handle:
        # Weights only: measured operating points are in the head of the file, and change nothing.
        handle.seek(8 + int.from_bytes(handle.read(8), "little"))
        digest = file_digest(handle, lambda: blake2b(digest_size=12))
    for part in (
        _header_of(predictor),
        str(FORMAT),
        str(point),
        *map(version_of, ("vitrail", "torch", "openvino")),
    ):
        digest.update(part.encode())
    return cache_dir() / "fast" / f"{digest.hexdigest()}.openvino"
