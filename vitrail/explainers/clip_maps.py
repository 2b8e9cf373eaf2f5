"""Maps over space and time in the pixels of the frames of a clip, and the share of each frame."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vitrail import plots
from vitrail.data.batch import Geometry
from vitrail.data.view import scaled
from vitrail.explainers.grids import pooled
from vitrail.explainers.to_original import Map, onto_original

SIDE = 640
"""Largest side of frames and their maps in pixels: those of a long clip would not fit into memory."""


def on_frames(grid: Map, geometry: Geometry, rim: float = 0.0) -> Map:
    """Return values (moment, row, col) for every frame: (t, height, width), NaN outside the network's input.

    Frames have the size of `small_frames`; `rim` as in `onto_original`.
    """
    small = scaled(geometry, SIDE)
    moments = _at_frames(grid, len(geometry.times))
    return np.stack([onto_original(np.maximum(moment, 0), small, rim) for moment in moments])


def small_frames(frames: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    """Return frames (t, height, width, channels), made smaller if a side is longer than `SIDE` pixels."""
    height, width = scaled(geometry, SIDE).original
    if frames.shape[1:3] == (height, width):
        return frames
    made = [plots.of_array(frame).resize((width, height), Image.Resampling.LANCZOS) for frame in frames]
    return np.stack([np.asarray(frame).reshape(height, width, -1) for frame in made])


def frame_shares(grid: Map, frames: int) -> tuple[float, ...]:
    """Return the share of each frame in values (moment, row, col) above 0, with sum 1; equal if there are none."""
    moments = _at_frames(np.maximum(grid, 0), frames).sum((1, 2), dtype=np.float64)
    total = moments.sum()
    shares = moments / total if total > 0 else np.full(frames, 1 / frames)
    return tuple(shares.tolist())


def _at_frames(grid: Map, frames: int) -> Map:
    """Return the mean of each frame: (moment, row, col) -> (frames, row, col); moments may be longer than a frame."""
    if len(grid) == frames:
        return grid
    values: Map = pooled(torch.as_tensor(grid)[None], (frames, *grid.shape[1:]))[0].numpy()
    return values
