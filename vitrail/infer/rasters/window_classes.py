"""The class of every pixel from the window around it, as a classifier of windows was trained.

The pixel lies at index n/2 of its window of n pixels. A network that shares work between windows
(`Encoder.sliding`) gets strips of the tile; others get windows in batches, through the steps of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail.data.batch import images_only
from vitrail.data.preprocess import Preprocess
from vitrail.data.rasters.grid import Window
from vitrail.infer.backends import BackendNetwork
from vitrail.infer.predictor import Predictor, Request
from vitrail.infer.rasters.tiles import BLOCK, TileAnswer
from vitrail.layers.elastic import at_size
from vitrail.layers.encoder import Encoder
from vitrail.layers.heads import Output
from vitrail.layers.mahalanobis import MIDDLE
from vitrail.runs.network import Network
from vitrail.tasks.class_maps import OfWindows

AT_ONCE = 256
"""Windows that are computed together by a network that shares no work."""

SHARED_AT_ONCE = 8192
"""Windows of a strip that share their work."""


class SlidingNetwork(nn.Module):
    """A network on all windows of its images: {"images": (1, c, H, W)} -> outputs of every window, in raster order."""

    __call__: Callable[..., Output]

    def __init__(self, network: Network, window: int) -> None:
        super().__init__()
        self.network, self.window = network, window

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        """Return the outputs, one for each position of the window."""
        features = self.network.encoder.sliding(inputs["images"], (self.window, self.window))
        return self.network.read(features, inputs)


def shares_work(network: Network, steps: Preprocess) -> bool:
    """Return whether a network computes neighbouring windows together, from pixels that are not resized."""
    middle = network.reader is not None and MIDDLE in network.reader.places
    own = type(network.encoder).sliding is not Encoder.sliding
    return own and not middle and is_unresized(steps)


def is_unresized(steps: Preprocess) -> bool:
    """Return whether inputs show the pixels of a window as they are."""
    return steps.size == (steps.window, steps.window) and steps.crop_fraction == 1.0


class WindowClasses:
    """Predicts tiles of a classifier of windows; see `TileNetwork`."""

    side = BLOCK

    def __init__(self, predictor: Predictor, task: OfWindows, request: Request) -> None:
        self.predictor, self.task, self.request = predictor, task, request
        self.steps = predictor.preprocess_at(request.point)
        self.window = self.steps.window
        network = predictor.at(request.point)
        self.shared = request.backend is None and shares_work(network, self.steps)
        self.words = f"the {self.window} x {self.window} pixels around every pixel"
        if self.shared:
            sliding = SlidingNetwork(network, self.window).eval()
            self.request = replace(request, backend=sliding)

    def around(self, core: Window) -> Window:
        """Return the tile with the margin that windows of its outermost pixels reach."""
        before, after = self.window // 2, self.window - self.window // 2 - 1
        return core[0] - before, core[1] - before, core[2] + after, core[3] + after

    def predict(self, values: NDArray[np.float32], core: Window, wanted: NDArray[np.bool_]) -> TileAnswer:
        """Return the classes of a tile."""
        if self.shared:
            output = _joined(list(self._strips(values)))
            return self._answer(output, np.ones_like(wanted))
        return self._answer(_joined(list(self._batches(values, wanted))), wanted)

    def _answer(self, output: Output, wanted: NDArray[np.bool_]) -> TileAnswer:
        shares = self.task.class_shares(output)
        found = shares.probabilities.numpy()
        probabilities = np.zeros((found.shape[1], *wanted.shape), np.float32)
        probabilities[:, wanted] = found.T
        if shares.none is None:
            return TileAnswer(probabilities)
        none = np.zeros(wanted.shape, np.bool_)
        none[wanted] = shares.none.numpy()
        return TileAnswer(probabilities, none)

    def _strips(self, values: NDArray[np.float32]) -> Iterator[Output]:
        """Yield the outputs of strips of rows of windows."""
        whole = normalised(self.steps, values)[None]
        rows, width = whole.shape[2] - self.window + 1, whole.shape[3] - self.window + 1
        step = max(1, SHARED_AT_ONCE // width)
        for top in range(0, rows, step):
            strip = whole[:, :, top : min(top + step, rows) + self.window - 1]
            yield self.predictor.run(images_only(strip), self.request)

    def _batches(self, values: NDArray[np.float32], wanted: NDArray[np.bool_]) -> Iterator[Output]:
        """Yield the outputs of the windows of wanted pixels, in batches."""
        rows, cols = np.nonzero(wanted)
        backend = self.request.backend
        many = backend.batch if isinstance(backend, BackendNetwork) else AT_ONCE
        plain = is_unresized(self.steps)
        source = normalised(self.steps, values).numpy() if plain else values.transpose(2, 0, 1)
        windows = sliding_window_view(source, (self.window, self.window), axis=(1, 2))
        for start in range(0, len(rows), many):
            some = windows[:, rows[start : start + many], cols[start : start + many]]  # (c, b, n, n)
            if plain:
                images = torch.from_numpy(np.ascontiguousarray(some.swapaxes(0, 1)))
            else:
                images = inputs_of(self.steps, some)
            yield self.predictor.run(images_only(at_size(images, self.request.point.size)), self.request)


def normalised(steps: Preprocess, values: NDArray[np.float32]) -> Tensor:
    """Return pixels (height, width, c) as a network reads them, without resizing: (c, height, width)."""
    return unresized(steps, (values.shape[0], values.shape[1])).eval(values)[0]


def unresized(steps: Preprocess, shape: tuple[int, int]) -> Preprocess:
    """Return the steps for an image of this shape that is shown as it is."""
    return replace(steps, size=shape, fit="squash", crop_fraction=1.0, zoom=None)


def inputs_of(steps: Preprocess, windows: NDArray[np.float32]) -> Tensor:
    """Return the inputs (b, c, *size) of many windows (c, b, height, width), resized as one image of c·b channels."""
    channels, many = windows.shape[:2]
    together = replace(
        steps,
        channels=channels * many,
        bands=(),
        mean=tuple(np.repeat(steps.mean, many).tolist()),
        std=tuple(np.repeat(steps.std, many).tolist()),
    )
    image = np.ascontiguousarray(windows.reshape(channels * many, *windows.shape[2:]).transpose(1, 2, 0))
    pixels, _ = together.eval(image)
    return pixels.view(channels, many, *steps.size).transpose(0, 1).contiguous()


def _joined(parts: list[Output]) -> Output:
    return {name: torch.cat([one[name] for one in parts]) for name in parts[0]}
