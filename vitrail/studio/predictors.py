"""The models of the last few runs, loaded once. torch is imported with the first of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from vitrail.explainers.live_attention import LiveAttention
    from vitrail.infer.predictor import Predictor

MOST = 3
"""Number of models that stay in memory."""


AT_ONCE = 2
"""Number of requests that compute at the same time: a long test of a heat map leaves room for another one."""


class Loaded(NamedTuple):
    """A model, and the same for the frames of a camera."""

    predictor: Predictor
    live: LiveAttention


class Predictors:
    """A bounded cache of models, by their folder and the time of their file."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._models: OrderedDict[tuple[Path, int], Loaded] = OrderedDict()
        self._loading, self._computing = Lock(), BoundedSemaphore(AT_ONCE)

    @contextmanager
    def model(self, folder: Path) -> Iterator[Predictor]:
        """Yield the model of a run, to few requests at a time: many at once would only slow each other down.

        Raises:
            RunError: the run has no model, or its proof fails.
        """
        loaded = self._loaded(folder)
        with self._computing:
            yield loaded.predictor

    @contextmanager
    def live(self, folder: Path) -> Iterator[LiveAttention]:
        """Yield the model of a run for the frames of a camera, as `model` does."""
        loaded = self._loaded(folder)
        with self._computing:
            yield loaded.live

    def folders(self) -> list[Path]:
        """Return the folders of the models in memory, the last used last."""
        return [folder for folder, _ in tuple(self._models)]

    def _loaded(self, folder: Path) -> Loaded:
        from vitrail.explainers.live_attention import LiveAttention
        from vitrail.infer.predictor import Predictor

        file = folder / "model.safetensors"
        key = (folder, file.stat().st_mtime_ns if file.is_file() else 0)
        with self._loading:
            if key not in self._models:
                predictor = Predictor(folder)
                self._models[key] = Loaded(predictor, LiveAttention(predictor))
                while len(self._models) > self.most:
                    self._models.popitem(last=False)
            self._models.move_to_end(key)
            return self._models[key]
