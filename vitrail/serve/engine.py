"""A model in a worker: which operating points it answers at, how quick each is, and the answers of a batch."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from hashlib import file_digest
from pathlib import Path
from statistics import median
from typing import Any

import torch

from vitrail.core.errors import VitrailError
from vitrail.core.malloc import trim_memory
from vitrail.core.text import command, reason
from vitrail.infer.autotune import request_with
from vitrail.infer.backends import PLAIN, Backend, BackendNetwork
from vitrail.infer.exported_predictor import ExportedPredictor
from vitrail.infer.inputs import Source
from vitrail.infer.operating_points import chosen, good
from vitrail.infer.point_speeds import fastest_backend, place_of, shown
from vitrail.infer.predictor import Predictor, Ready, Request, load
from vitrail.infer.prefetch import read_then_compute
from vitrail.layers.elastic import OperatingPoint, read_point
from vitrail.serve.explaining import methods_of
from vitrail.serve.messages import Answering, Batch, Done, Facts, Model, Options, Picture, Told
from vitrail.serve.speeds import BASE_PIXELS, Line, fit_line
from vitrail.serve.start_images import check_images, file_of, generated
from vitrail.tasks.abstention import Abstaining
from vitrail.tasks.ask import asked_of

SIZES = (1, 2, 4, 8)
"""Batch sizes that are timed when a server starts."""

TURNS = 3
"""Rounds in which all points take turns with each batch size."""

APART = 1.15
"""Points whose speeds differ by less are one for a server: each has a network of its own in memory."""


class Engine:
    """An opened model that answers batches.

    Raises, when it is made:
        VitrailError: the model cannot be opened, or has no such point.
    """

    def __init__(self, model: Model) -> None:
        torch.set_num_threads(model.threads)
        self.model, self.notes = model, list[str]()
        self.predictor = load(model.path, model.device, trust=model.trust)
        self.predictor.answering()
        self._readers, self._of_run = check_images(self.predictor, model.path)
        points = self._chosen_points()
        plans = self._plans(points)
        self._requests = {str(point): self._request(point, plans[str(point)]) for point in points}
        self._release()  # backends are checked with batches that are larger than those of a server

    def facts(self) -> Facts:
        """Measure the points, and return what the front of the server knows of the model."""
        predictor = self.predictor
        lines = self._lines()
        self._release()
        rows = {row["point"]: row for row in predictor.header.points}
        told = [
            Answering(
                name,
                str(_backend_of(request)),
                asdict(_backend_of(request)),
                lines[name],
                rows[name]["score"] if name in rows else None,
                good(rows[name]) if name in rows else 0.0,
            )
            for name, request in self._requests.items()
        ]
        with predictor.path.open("rb") as handle:
            digest = file_digest(handle, "sha256").hexdigest()
        return Facts(
            name=predictor.header.name,
            served=_served(predictor.path),
            task=predictor.task.name,
            labels=predictor.labels,
            sha256=digest,
            size=predictor.preprocess.size,
            channels=predictor.preprocess.channels,
            raw=predictor.preprocess.raw,
            zoom=predictor.preprocess.zoom,
            points=tuple(sorted(told, key=lambda one: -one.good)),
            sizes=SIZES,
            decoding=self._decoding(),
            takes_threshold=predictor.task.takes_threshold,
            has_sets=isinstance(predictor.task, Abstaining),
            methods=methods_of(predictor),
            card=_card(predictor.path),
            weights=predictor.header.weights,
            licence=predictor.header.licence or "",
            notes=tuple(self.notes),
            bands=predictor.preprocess.bands,
        )

    def computed(self, batch: Batch) -> Done:
        """Return the answers of a batch, in order; an image that cannot be read has a sentence instead."""
        try:
            request = self._asked(batch.point, batch.options)
        except VitrailError as error:
            return Done(refused=str(error))
        began = time.perf_counter()
        make = partial(self._prepared, request.point)
        made = list(read_then_compute(make, batch.pictures, len(batch.pictures)))
        decoded = time.perf_counter()
        predictions = iter(self._predicted([one for one in made if isinstance(one, Ready)], request))
        files = batch.options.files
        answers = tuple(
            Told(error=one) if isinstance(one, str) else Told(_plain(next(predictions), files))
            for one in made
        )
        return Done(answers, decoded - began, time.perf_counter() - decoded)

    def _predicted(self, ready: Sequence[Ready], request: Request) -> list[Any]:
        return self.predictor.predicted(ready, request) if ready else []

    def _prepared(self, point: OperatingPoint, picture: Any) -> Ready | str:
        name, data = picture
        try:
            return self.predictor.prepared(point, Source(name, data=data))[1]
        except Exception as error:  # a broken file may raise anything, and concerns itself only
            return f"{name} cannot be read: {reason(error)}. Send it as a JPEG or PNG."

    def _asked(self, point: str, options: Options) -> Request:
        request = self._requests[point]
        task = self.predictor.task_at(request.point)
        return Request(
            request.point,
            request.backend,
            asked_of(task, options.threshold, options.sets, options.each_class),
        )

    def _chosen_points(self) -> list[OperatingPoint]:
        """Return the points to answer at, the most accurate first."""
        predictor, whole = self.predictor, self.predictor.points[-1]
        if self.model.point is not None:
            return [chosen(self.model.point, predictor.known_points, self.model.path)]
        rows = predictor.header.points
        if not self.model.in_time or predictor.preprocess.zoom is not None:
            return [whole]
        if not rows:
            self.notes.append(_unmeasured(predictor, self.model.path))
            return [whole]
        return [read_point(row["point"]) for row in _spread_out(rows)]

    def _plans(self, points: Sequence[OperatingPoint]) -> dict[str, Backend]:
        """Return the backend of each point.

        That of the first worker; the one with which the point was scored, if that was on this machine; otherwise the
        fastest one that agrees with float32 on images of the run, if they are here.
        """
        predictor, names = self.predictor, [str(point) for point in points]
        if self.model.backends is not None:
            return {name: Backend(**self.model.backends[name]) for name in names}
        if self.model.exact or isinstance(predictor, ExportedPredictor) or predictor.preprocess.zoom:
            return dict.fromkeys(names, PLAIN)
        rows = {row["point"]: row for row in predictor.header.points if "backend" in row}
        here = all(name in rows and rows[name].get("machine") == place_of(predictor) for name in names)
        if here or (rows and not self._of_run):
            whole = rows.get(str(predictor.points[-1]), next(iter(rows.values())))
            return {name: Backend(**rows.get(name, whole)["backend"]) for name in names}
        if self._of_run:
            return dict.fromkeys(names, fastest_backend(predictor, self._readers))
        self.notes.append(
            "The images of this run are not here, so nothing quicker than float32 could be checked with them."
        )
        return dict.fromkeys(names, PLAIN)

    def _request(self, point: OperatingPoint, plan: Backend) -> Request:
        if plan == PLAIN:
            return Request(point)
        return request_with(self.predictor, plan, point, partial(shown, self._readers), any_number=True)

    def _release(self) -> None:
        """Free the memory of the largest batch, which every point keeps for itself."""
        for request in self._requests.values():
            if isinstance(request.backend, BackendNetwork):
                request.backend.release()
        trim_memory()

    def _lines(self) -> dict[str, Line]:
        """Return the line of speed of every point; all take turns, so that a busy moment meets all alike."""
        image = self._readers[0]()
        ready = {name: self.predictor.ready(image, one.point) for name, one in self._requests.items()}
        times: dict[tuple[str, int], list[float]] = {}
        for turn in range(TURNS + 1):
            for name, request in self._requests.items():
                for size in SIZES:
                    began = time.perf_counter()
                    self.predictor.predicted([ready[name]] * size, request)
                    if turn:  # the first one warms up
                        times.setdefault((name, size), []).append(time.perf_counter() - began)
        return {
            name: fit_line([(size, median(times[name, size]), 1.0) for size in SIZES])
            for name in self._requests
        }

    def _decoding(self) -> float:
        """Return seconds of a core for a pixel of an image file."""
        steps = self.predictor.preprocess
        image = generated(0, steps)
        request = next(iter(self._requests.values()))
        times, data = [], file_of(image)
        for name in self._requests:  # all the way, so that the first request is as quick as the tenth
            self.computed(Batch(name, Options(), (Picture("image", data),) * 2))
        for _ in range(TURNS):
            began = time.perf_counter()
            self._prepared(request.point, ("image", data))
            times.append(time.perf_counter() - began)
        pixels: int = image.shape[0] * image.shape[1]
        return median(times) / (pixels + BASE_PIXELS)


def _backend_of(request: Request) -> Backend:
    return request.backend.plan if isinstance(request.backend, BackendNetwork) else PLAIN


def _spread_out(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the measured points that no other one beats, without those that are hardly quicker than a better one."""
    front = sorted((row for row in rows if not row["beaten_by"]), key=good, reverse=True)
    kept = front[:1]
    for row in front[1:]:
        if row["images_per_second"] >= APART * kept[-1]["images_per_second"]:
            kept.append(row)
    return kept


def _unmeasured(predictor: Predictor, model: str) -> str:
    if len(predictor.dial) == 1:
        return f"{model} has one operating point only: under load it refuses sooner than a model with a dial."
    return (
        f"The operating points of {model} were not measured yet, so only the whole network answers. Measure them once: "
        f"{command('eval', model, '--points', 'all')}"
    )


def _plain(prediction: Any, files: bool) -> dict[str, Any]:
    """Return what `vitrail predict --json` says of a prediction, and its files in base64, if they are wanted."""
    plain: dict[str, Any] = dict(prediction.to_dict())
    if files:
        made: Mapping[str, bytes] = getattr(prediction, "files", dict)()
        plain["files"] = {ending.lstrip("."): b64encode(data).decode() for ending, data in made.items()}
    return plain


def _served(path: Path) -> str:
    """Return the name of a model in addresses: that of its run or file."""
    name = path.parent.name if path.name == "model.safetensors" else path.stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name) or "model"


def _card(path: Path) -> str:
    """Return the model card beside a model file, or an empty string."""
    try:
        return (path.parent / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
