"""Predict with an exported file through the same interface as with any other model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrail.core.errors import RunError
from vitrail.data.batch import Batch, Geometry
from vitrail.data.preprocess import Preprocess, shape_of
from vitrail.infer.clips import clip_for
from vitrail.infer.predictor import Predictor, Ready, Request, build_header_task
from vitrail.infer.runtimes import KINDS, OfGeometry, contradicts, open_exported, output_names, readable
from vitrail.layers.elastic import OperatingPoint, read_point
from vitrail.layers.heads import Output
from vitrail.runs.model_file import Header
from vitrail.runs.network import Network
from vitrail.runs.proof import ROUNDED, TOLERANCE, proof_image_for
from vitrail.tasks.base import Task


class ExportedPredictor(Predictor):
    """A Predictor whose preprocessing and network are one graph. Opening it checks the proof in the file."""

    def __init__(self, path: Path, trust: bool = False, point: str | OperatingPoint | None = None) -> None:
        self.path = path
        self._opened = open_exported(path, KINDS[path.suffix], trust)
        self.header = self._opened.header
        self.preprocess = Preprocess.from_dict(self.header.preprocess)
        self.task = build_header_task(self.header)
        self.device = torch.device("cpu")
        named = self.header.point
        self.point = read_point(named) if named else OperatingPoint(self.preprocess.size)
        self.points = (self.point,)
        if point is not None and (read_point(point) if isinstance(point, str) else point) != self.point:
            raise RunError(
                f"{path} is an exported graph of {named or 'the whole network'}. To choose another operating point, "
                "name the run or its model.safetensors."
            )
        self.proof_drift = self._check_proof()

    @property
    def known_points(self) -> tuple[OperatingPoint, ...]:
        """The operating point of the graph."""
        return self.points

    @property
    def dial(self) -> tuple[OperatingPoint, ...]:
        """The operating point of the graph: a graph has no dial."""
        return self.points

    def task_at(self, point: OperatingPoint) -> Task[Any, Any]:
        """Return the task of the graph."""
        return self.task

    def preprocess_at(self, point: OperatingPoint) -> Preprocess:
        """Return the steps of the graph (`at_size` follows for trained sizes)."""
        return self.preprocess

    def header_at(self, point: OperatingPoint) -> Header:
        """Return the header of the graph."""
        return self.header

    @property
    def network(self) -> Network:
        """Raise a RunError: a graph cannot be inspected."""
        raise RunError(
            f"{self.path} is an exported graph and cannot be inspected. "
            "Name the run or its model.safetensors."
        )

    def at(self, point: OperatingPoint) -> Network:
        """Raise a RunError: a graph has one operating point."""
        return self.network

    @property
    def _tolerance(self) -> float:
        return ROUNDED if self.preprocess.rounded else TOLERANCE

    def ready(self, image: Any, point: OperatingPoint | None = None) -> Ready:
        """Decode an image to (height, width, channels), or a clip; the graph does the rest, so `pixels` is empty."""
        if self.preprocess.frames:
            clip = clip_for(self.preprocess, image)
            placed = replace(self._geometry(clip.frames), times=clip.times)
            return Ready(torch.empty(0), placed, clip.frames)
        array = self.decoded(image)
        geometry = replace(self._geometry(array), spacing=self.spacing(image))
        return Ready(torch.empty(0), geometry, array)

    def _waiting(self, ready: Ready) -> Ready:
        """Return it unchanged: the graph takes the original image."""
        return ready

    def outputs(self, ready: Sequence[Ready], request: Request | None = None) -> Output:
        """Return the task's raw output for decoded images, batch axis first."""
        answers = [self._named(self._opened.one(one.image)) for one in ready]
        return {name: torch.stack([one[name] for one in answers]) for name in self.task.outputs}

    def run(self, batch: Batch[Any], request: Request | None = None) -> Output:
        """Raise a RunError: the graph takes decoded images."""
        raise RunError(
            f"{self.path} is an exported graph: it takes images, not prepared inputs, and cannot be "
            "inspected. Name the run or its model.safetensors."
        )

    def encode(self, images: Sequence[Any]) -> Tensor:
        """Raise a RunError: the graph returns no features."""
        raise RunError(
            f"{self.path} is an exported graph without features. Name the run or its model.safetensors."
        )

    def _geometry(self, image: Any) -> Geometry:
        placed = self.preprocess.geometry(*shape_of(image))
        return replace(placed, size=self.point.size)

    def _named(self, found: tuple[Tensor, ...]) -> Output:
        """Name the outputs; engines only keep their order."""
        return dict(zip(output_names(self.task), found, strict=False))

    def _answer_to_proof(self) -> list[float]:
        outputs = self._named(self._opened.one(proof_image_for(self.preprocess)))
        output = {name: outputs[name][None] for name in self.task.outputs}
        onto = OfGeometry(self._geometry(proof_image_for(self.preprocess)))
        for name, again in readable(self.task, output, onto).items():
            if contradicts(again[0], outputs[name]):
                raise RunError(
                    f"{self.path}: the outputs for its proof image contradict each other. Export it again."
                )
        return [float(number) for number in self.task.fingerprint(output).flatten().tolist()]
