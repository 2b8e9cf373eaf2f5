"""One picture of a camera: the answer, and where the network looked, from a single forward pass."""

from __future__ import annotations

import base64
import time
from io import BytesIO
from typing import Any

import numpy as np
from torch import Tensor, nn

from vitrail import plots
from vitrail.data.view import scaled
from vitrail.explainers.rollout import follow, on_grid, recorded, start
from vitrail.explainers.target import Subject
from vitrail.explainers.to_original import onto_original
from vitrail.infer.predictor import Predictor, Ready, Request
from vitrail.layers.heads import Output
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Features
from vitrail.runs.network import Network
from vitrail.studio.answers import BARS

MAP = 64
"""Longest side of the attention map that is sent; the page enlarges it smoothly."""


class _Recording(nn.Module):
    """A network that keeps the attention and the features of its last forward pass."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.recorder = Recorder()
        self.features: Features | None = None

    def forward(self, inputs: Any) -> Output:
        """Return the outputs of the network."""
        self.recorder = Recorder()
        self.features = self.network.encode(inputs, self.recorder)
        return self.network.read(self.features, inputs)


def frame(predictor: Predictor, data: bytes) -> dict[str, Any]:
    """Return the answer for a picture in bytes, and where the network looked, as plain data.

    Raises:
        DataError: the picture cannot be read.
    """
    began = time.perf_counter()
    ready = predictor.ready(data)
    network = predictor.at(predictor.point)
    looks = network.spec.shows_attention and predictor.preprocess.zoom is None
    recording = _Recording(network) if looks else None
    output = predictor.outputs([ready], Request(predictor.point, recording))
    [prediction] = predictor.task.decode(output, [ready.geometry], Request(predictor.point).ask)
    return {
        **_told(predictor, ready, prediction),
        "attention": _attention(predictor, recording, ready, prediction),
        "milliseconds": round(1000 * (time.perf_counter() - began), 1),
    }


def _told(predictor: Predictor, ready: Ready, prediction: Any) -> dict[str, Any]:
    """Return the answer: bars where the task ranks labels, otherwise the picture that the task draws."""
    top = getattr(prediction, "top", None)
    if top is None:
        drawn = predictor.task.render(plots.of_array(ready.image), prediction)
        return {"text": str(prediction), "bars": [], "unlike": None, "none": False, "drawn": _jpeg(drawn)}
    return {
        "text": str(prediction),
        "bars": [[label, float(share)] for label, share in top(BARS)],
        "unlike": getattr(prediction, "unlike", None),
        "none": bool(getattr(prediction, "none_of_these", False)),
        "drawn": "",
    }


def _attention(
    predictor: Predictor, recording: _Recording | None, ready: Ready, prediction: Any
) -> dict[str, Any] | None:
    """Return the rollout of the recorded attention on the picture: its size, and a byte a cell."""
    if recording is None or recording.features is None or not recording.recorder.maps:
        return None
    subject = Subject(recording.network, predictor.task, prediction, "")
    first = start(subject, recording.features)
    grid = on_grid(follow(recorded(recording.recorder.maps), first, recording.features))
    return _bytes(grid, ready, subject)


def _bytes(grid: Tensor, ready: Ready, subject: Subject) -> dict[str, Any]:
    values = np.maximum(grid[0].float().numpy(), 0)
    small = scaled(ready.geometry, MAP)
    heat = np.nan_to_num(onto_original(values, small, subject.spec.overlap_margin))
    low, high = float(np.median(heat)), float(heat.max())
    share = np.clip((heat - low) / max(high - low, 1e-9), 0, 1)  # what is below the median does not glow
    height, width = share.shape
    told = base64.b64encode((255 * share).astype(np.uint8).tobytes()).decode("ascii")
    return {"width": width, "height": height, "values": told}


def _jpeg(image: Any) -> str:
    target = BytesIO()
    image.convert("RGB").save(target, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(target.getvalue()).decode("ascii")
