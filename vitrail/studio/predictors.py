"""The models of the last few runs, loaded once. torch is imported with the first of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitrail.infer.predictor import Predictor

MOST = 3
"""Number of models that stay in memory."""


AT_ONCE = 2
"""Number of requests that compute at the same time: a long test of a heat map leaves room for another one."""


class Predictors:
    """A bounded cache of models, by their folder and the time of their file."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._models: OrderedDict[tuple[Path, int], Predictor] = OrderedDict()
        self._loading, self._computing = Lock(), BoundedSemaphore(AT_ONCE)

    @contextmanager
    def model(self, folder: Path) -> Iterator[Predictor]:
        """Yield the model of a run, to few requests at a time: many at once would only slow each other down.

        Raises:
            RunError: the run has no model, or its proof fails.
        """
        predictor = self._loaded(folder)
        with self._computing:
            yield predictor

    def folders(self) -> list[Path]:
        """Return the folders of the models in memory, the last used last."""
        return [folder for folder, _ in tuple(self._models)]

    def _loaded(self, folder: Path) -> Predictor:
        from vitrail.infer.predictor import Predictor

        file = folder / "model.safetensors"
        key = (folder, file.stat().st_mtime_ns if file.is_file() else 0)
        with self._loading:
            if key not in self._models:
                self._models[key] = Predictor(folder)
                while len(self._models) > self.most:
                    self._models.popitem(last=False)
            self._models.move_to_end(key)
            return self._models[key]
