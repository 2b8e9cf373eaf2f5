"""The answer for one image and where the network looked, from a single forward pass: quick enough for a camera."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail.core.errors import RunError
from vitrail.data.batch import Geometry
from vitrail.explainers.streaming import Piecewise
from vitrail.infer.predictor import Predictor, batch_of
from vitrail.layers.heads import Output
from vitrail.layers.sdpa import AttentionMap, Recorder, TokenIndex
from vitrail.layers.tokens import class_tokens
from vitrail.runs.network import Network
from vitrail.runs.run_network import ASK, answering, run_network


class Glance(NamedTuple):
    """A prediction, the weights of the last layer's attention as (row, col), or None, and where the input lies."""

    prediction: Any
    looked: Tensor | None
    geometry: Geometry


class LiveAttention:
    """A model that answers frame by frame. The first frame counts the layers; later ones record only the last.

    RunError for a model of clips, which does not answer for one frame.
    """

    def __init__(self, predictor: Predictor) -> None:
        if frames := predictor.preprocess.frames:
            raise RunError(
                f"{predictor.header.name} takes clips of {frames} frames, so it answers no single frames of a camera. "
                "Record a clip: vitrail predict and vitrail explain take it."
            )
        self.predictor = predictor
        self.shows = predictor.network.spec.shows_attention and predictor.preprocess.zoom is None
        self._calls: int | None = None

    def __call__(self, image: NDArray[Any]) -> Glance:
        """Return the answer for an image (height, width, channels), and where the last layer looked.

        This is the attention of the class token, or of the mean of all patches if there is none, mean over heads.
        """
        predictor, ready = self.predictor, self.predictor.ready(image)
        if not self.shows:
            return Glance(predictor.predict([image])[0], None, ready.geometry)
        recorder = _LastRow(predictor.network.spec.prefix, self._calls)
        watched = _Watched(predictor.at(predictor.point), recorder)
        compute = answering(predictor.task, watched)
        _, output = next(run_network(compute, [batch_of([ready])], predictor.device))
        self._calls = recorder.calls
        [prediction] = predictor.task.decode(output, [ready.geometry], ASK)
        return Glance(prediction, recorder.found(), ready.geometry)


class _Watched(nn.Module):
    """A network as its task runs it, which passes on a recorder."""

    def __init__(self, network: Network, record: Recorder) -> None:
        super().__init__()
        self.network, self.record = network, record

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        return self.network.read(self.network.encode(inputs, self.record), inputs)


class _LastRow(Piecewise):
    """Keeps one row of the last attention call, mean over heads; earlier calls only compute, if `last` is known."""

    def __init__(self, names: tuple[str, ...], last: int | None) -> None:
        super().__init__()
        self.names, self.last = names, last
        self._row = self._found = torch.empty(0)
        self._shape: tuple[int, ...] = ()

    def begin(self, place: TokenIndex) -> None:
        self._shape = self.grid
        cells = prod(self.grid)
        self._row = torch.zeros(1, self.prefix + cells)
        classes = class_tokens(self.names)
        if self.prefix and classes:
            self._row[0, classes] = 1 / len(classes)
        else:
            self._row[0, self.prefix :] = 1 / cells
        self._found = torch.zeros(())

    def take(self, piece: AttentionMap) -> None:
        row = self._row.to(piece.weights).expand(len(piece.weights) // piece.groups, -1)
        self._found = self._found.to(row) + piece.left_multiply(row)[:, self.prefix :]

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, where: Callable[[], TokenIndex]
    ) -> Tensor:
        if self.last is None or self.calls + 1 >= self.last:
            return super().attend(q, k, v, bias, where)
        self.calls += 1
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)

    def found(self) -> Tensor | None:
        """Return the row on the grid of patches: (row, col); None if no attention was computed."""
        return self._found[0].view(*self._shape).cpu() if self._shape else None
