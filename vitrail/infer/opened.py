"""An exported file asked like any other model: the same decoding, the same answers, another engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrail.core.errors import RunError
from vitrail.data.preprocess import Preprocess
from vitrail.infer.exported import KINDS, open_exported
from vitrail.infer.predictor import Predictor, Ready, build_header_task
from vitrail.layers.elastic import Point
from vitrail.runs.assemble import Network
from vitrail.runs.proof import picture_for


class ExportedPredictor(Predictor):
    """A Predictor whose preprocessing and network are one graph; opening it checks the proof the file carries."""

    def __init__(self, path: Path, trust: bool = False) -> None:
        self.path = path
        self.header, self._engine = open_exported(path, KINDS[path.suffix], trust)
        self.preprocess = Preprocess.from_dict(self.header.preprocess)
        self.task = build_header_task(self.header)
        self.device = torch.device("cpu")
        self.proof_drift = self._check_proof()
        self.point = Point(self.preprocess.size)

    @property
    def network(self) -> Network:
        """Refused: the graph computes, but cannot be looked into."""
        raise RunError(
            f"{self.path} is an exported graph and cannot be "
            "looked into. Name the run or its model.safetensors."
        )

    def turn_to(self, point: str | Point) -> None:
        """Refused: the graph is that of one point."""
        raise RunError(
            f"{self.path} is an exported graph and answers as the whole network alone. Name the run or its "
            "model.safetensors to choose an operating point."
        )

    def ready(self, image: Any) -> Ready:
        """Bring a picture to an array (height, width, channels); the graph does the rest, so `pixels` are empty."""
        array = self.decoded(image)
        geometry = self.preprocess.geometry(array.shape[0], array.shape[1])
        return Ready(torch.empty(0), geometry, array)

    def _waiting(self, ready: Ready) -> Ready:
        """Return all of it: the graph begins at the picture."""
        return ready

    def asked(self, ready: Sequence[Ready]) -> Tensor:
        """Return the task's raw output: (b, …)."""
        return torch.stack([self._engine(one.image).output for one in ready])

    def outputs(self, pixels: Tensor) -> Tensor:
        """Refused: the graph begins at the picture."""
        raise RunError(
            f"{self.path} is an exported graph: it takes pictures, not prepared inputs, and cannot be "
            "looked into. Name the run or its model.safetensors."
        )

    def encode(self, images: Sequence[Any]) -> Tensor:
        """Refused: the graph gives no features."""
        raise RunError(f"{self.path} gives no features. Name the run or its model.safetensors.")

    def _answer_to_proof(self) -> list[float]:
        said = self._engine(picture_for(self.preprocess))
        again = self.task.probabilities(said.output[None])[0]
        if float((again - said.probabilities).abs().max()) > 1e-5:
            raise RunError(f"{self.path} contradicts itself about its proof picture. Export it again.")
        return [float(p) for p in said.probabilities.flatten().tolist()]
