"""Data loading from manifest rows to batches; the images of a step depend only on the seed and the step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from logging import getLogger
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from vitrail.core.environment import usable_cores
from vitrail.core.errors import VitrailError
from vitrail.core.seeds import derive
from vitrail.data.augment import Augment
from vitrail.data.batch import Batch, Geometry
from vitrail.data.manifest import Row
from vitrail.data.open_image import load, load_clip
from vitrail.data.preprocess import Preprocess, shape_of
from vitrail.data.targets import Targets, read_truth
from vitrail.data.view import View

SHARED = "/dev/shm"
"""Folder of the shared memory in which Linux processes exchange batches."""


def load_for(steps: Preprocess, root: Path, row: Row, key: int = -1) -> NDArray[Any]:
    """Return the image of a row (height, width, channels) as these steps take it: colours, or values of named bands.

    Of a clip, return its frames, (frames, height, width, channels); in training `key` draws which ones.
    """
    if steps.frames:
        return load_clip(root, row.path, row.part, steps.frames, key=key, channels=steps.channels).frames
    return load(root, row.path, steps.channels, row.part, raw=steps.raw, bands=steps.band_names).image


@dataclass(frozen=True, slots=True)
class Order:
    """The samples of every step: a new seeded shuffle in each epoch, split into batches.

    Samples that do not fill the last batch of an epoch are left out of it, so that every step has the same weight; a
    set smaller than one batch is one batch. With `chances`, samples are drawn with replacement.
    """

    samples: int
    batch: int
    seed: int
    chances: tuple[float, ...] | None = None  # sampling probabilities; None: each sample once per epoch

    @property
    def steps(self) -> int:
        """Number of steps per epoch."""
        return max(1, self.samples // self.batch)

    def at(self, step: int) -> NDArray[np.int64]:
        """Return the sample indices of a step, counted from the start of the run."""
        epoch, within = divmod(step, self.steps)
        start = within * self.batch
        drawn = _shuffled(self.samples, derive(self.seed, "order", epoch), self.chances)
        return drawn[start : start + self.batch]


@lru_cache(maxsize=2)
def _shuffled(samples: int, seed: int, chances: tuple[float, ...] | None) -> NDArray[np.int64]:
    draw = np.random.default_rng(seed)
    return draw.permutation(samples) if chances is None else draw.choice(samples, samples, p=chances)


class _Seen(NamedTuple):
    """One preprocessed image for a batch."""

    pixels: torch.Tensor
    target: Any
    id: str
    geometry: Geometry


class ImageDataset(Dataset["_Seen | VitrailError"]):
    """The rows of a manifest as network inputs; the index is (index, key), where key < 0 means as in prediction.

    Truths are read together with images, in a worker of the loader; only in training they move with the image.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        root: Path,
        preprocess: Preprocess,
        targets: Targets[Any],
        augment: Augment | None = None,
    ) -> None:
        self.rows, self.root, self.preprocess, self.augment = rows, root, preprocess, augment
        self.targets = targets

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: tuple[int, int]) -> _Seen | VitrailError:
        """Return an image or the error: raised in a worker, the error would be wrapped in a traceback."""
        try:
            return self._seen(*at)
        except VitrailError as error:
            return error

    def _seen(self, index: int, key: int) -> _Seen:
        row = self.rows[index]
        steps = self.preprocess
        augment = self.augment if key >= 0 else None
        image = load_for(steps, self.root, row, -1 if augment is None else derive(key, "frames"))
        target = read_truth(self.targets, row, self.root)
        shape = shape_of(image)
        if augment is None:
            view = steps.whole(shape).view(shape)
            return _Seen(view.image(image), target, row.id, view.geometry)

        def draw(turn: int) -> View:
            return steps.view(shape, augment, derive(key, "turn", turn) if turn else key)

        target = self.targets.drawn(target, key)
        view = self.targets.view(target, draw, key)
        return _Seen(view.image(image), self.targets.transform(target, view), row.id, view.geometry)

    def collate(self, found: Sequence[_Seen | VitrailError]) -> Batch[Any] | VitrailError:
        """Return images and truths as a batch, or the error if one cannot be read."""
        batch = listed(found)
        if isinstance(batch, VitrailError):
            return batch
        return replace(batch, targets=self.targets.collate(batch.targets))


def listed(found: Sequence[_Seen | VitrailError]) -> Batch[Any] | VitrailError:
    """Return images as a batch with a list of truths, which have different sizes in the original pixels."""
    seen = [one for one in found if isinstance(one, _Seen)]
    if len(seen) < len(found):
        return next(one for one in found if isinstance(one, VitrailError))
    return Batch(
        {"images": torch.stack([one.pixels for one in seen])},
        [one.target for one in seen],
        tuple(one.id for one in seen),
        tuple(one.geometry for one in seen),
    )


def processes(wanted: int) -> int:
    """Return the number of worker processes: the requested one, or for -1 the cores minus one, at most eight."""
    return wanted if wanted >= 0 else max(0, min(8, usable_cores() - 1))


def _batches(
    pictures: ImageDataset, batches: Sequence[Any] | Iterator[Any], workers: int, collate: Callable[..., Any]
) -> Iterator[Batch[Any]]:
    """Yield the batches; raise the VitrailError of an image or truth that cannot be read."""
    loader: DataLoader[Any] = DataLoader(
        pictures,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        multiprocessing_context="fork"
        if workers and os.name == "posix" and not torch.cuda.is_available()
        else None,
        pin_memory=torch.cuda.is_available(),
    )
    for batch in loader:
        if isinstance(batch, VitrailError):
            raise batch
        yield batch


def roomy(workers: int, pictures: ImageDataset, batch: int) -> int:
    """Return how many of the processes fit into the shared memory: two batches each, and one in use.

    Containers have 64 MB of it; a process without free shared memory crashes or waits forever.
    """
    if not workers or not os.path.isdir(SHARED):
        return workers
    import resource  # exists on all systems with such a folder

    steps = pictures.preprocess
    size = 4 * batch * prod(steps.shape)
    status, limit = os.statvfs(SHARED), resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    room = max(0, status.f_bavail * status.f_frsize // size - 1) // 2
    found = 0 if 0 <= limit < size else min(workers, room)
    if found < workers:
        _say_narrow(found, workers)
    return found


@lru_cache
def _say_narrow(found: int, workers: int) -> None:
    getLogger("vitrail").warning(
        "%s has room for %d instead of %d processes that read images. This is slower and changes nothing else. Docker "
        "gives more with --shm-size=2g.",
        SHARED,
        found,
        workers,
    )


@dataclass(frozen=True, slots=True)
class Share:
    """The part of every batch that this process computes."""

    rank: int = 0
    world: int = 1

    def of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this process's contiguous part."""
        return np.array_split(indices, self.world)[self.rank]


def training(
    pictures: ImageDataset, order: Order, share: Share, start: int, stop: int, workers: int
) -> Iterator[Batch[Any]]:
    """Yield this process's part of the batch of every step from `start` to `stop`."""

    def keys(step: int) -> list[tuple[int, int]]:
        epoch = step // order.steps
        ids = pictures.rows
        return [(int(i), derive(order.seed, "augment", epoch, ids[i].id)) for i in share.of(order.at(step))]

    found = roomy(workers, pictures, -(-order.batch // share.world))
    yield from _batches(pictures, (keys(step) for step in range(start, stop)), found, pictures.collate)


def evaluation(pictures: ImageDataset, batch: int, share: Share, workers: int = 0) -> Iterator[Batch[Any]]:
    """Yield every `world`-th batch of all images, in order and as in prediction; the truths are a list."""
    batch = batch if pictures.preprocess.zoom is None else 1  # with a zoom, images have different sizes
    indices = np.array_split(np.arange(len(pictures)), max(1, -(-len(pictures) // batch)))
    mine = [[(int(i), -1) for i in part] for part in indices[share.rank :: share.world] if len(part)]
    yield from _batches(pictures, mine, roomy(workers, pictures, batch), listed)
