"""Predict large images in tiles: each tile is an image of its own, and the task joins their predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import SettingError, VitrailError
from vitrail.infer.inputs import Source
from vitrail.infer.predictor import Answer, Predictor, Request

AT_ONCE = 16
"""Tiles that are computed together."""


def refuse_tiles(predictor: Predictor, side: int) -> None:
    """Raise a SettingError if the task of a model does not join tiles, or if tiles have no size."""
    if not hasattr(predictor.task, "join_tiles"):
        raise SettingError(
            f"The task {predictor.task.name} does not join the predictions of tiles. Remove --tiles."
        )
    if side < 1:
        raise SettingError(f"--tiles is the side of a tile in pixels, such as 640, not {side}.")


def tiled_answers(
    predictor: Predictor, sources: Iterable[Source], side: int, request: Request
) -> Iterator[Answer]:
    """Yield one answer per source, in order, joined from square tiles of `side` pixels that overlap."""
    for source in sources:
        try:
            yield Answer(source.name, tiled(predictor, predictor.decoded(source), side, request))
        except VitrailError as error:
            yield Answer(source.name, error=str(error))


def tiled(predictor: Predictor, image: NDArray[Any], side: int, request: Request) -> Any:
    """Return the prediction of an image (height, width, channels) from its tiles."""
    task: Any = predictor.task
    size = (image.shape[0], image.shape[1])
    tiles = task.tiles(size, side)
    found: list[Any] = []
    for start in range(0, len(tiles), AT_ONCE):
        found += predictor.predict(_cut(image, tiles[start : start + AT_ONCE]), request)
    return task.join_tiles(found, tiles, predictor.preprocess.geometry(*size))


def _cut(image: NDArray[Any], tiles: Sequence[tuple[int, int, int, int]]) -> list[NDArray[Any]]:
    return [np.ascontiguousarray(image[top:bottom, left:right]) for left, top, right, bottom in tiles]
