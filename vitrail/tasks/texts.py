"""What a task offers that encodes texts beside images, for searches and for predictions that are chosen among texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vitrail.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    from vitrail.data.manifest import Row


@runtime_checkable
class ReadsTexts(Protocol):
    """A task with a text tower: images and texts are vectors of one space."""

    vocabulary: Vocabulary | None
    known: Any | None
    """The texts that predictions are chosen from, or None."""

    def read(self, row: Row, root: Path) -> tuple[str, ...]:
        """Return the captions of a row."""
        ...

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the unit vectors of texts: (n, e). RunError: no model file with a text tower is open."""
        ...

    def choose_texts(self, texts: Sequence[str]) -> None:
        """Choose predictions among these texts from now on."""
        ...
