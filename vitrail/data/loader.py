"""From manifest rows to batches: which image is seen at which step is a function of the seed and the step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from logging import getLogger
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from vitrail.core.errors import VitrailError
from vitrail.core.seeds import derive
from vitrail.data.augment import Augment
from vitrail.data.batch import Batch, Geometry
from vitrail.data.manifest import Row
from vitrail.data.open_image import load
from vitrail.data.preprocess import Preprocess
from vitrail.data.targets import Targets, read_truth
from vitrail.data.view import View

SHARED = "/dev/shm"
"""Where Linux keeps the memory through which processes hand each other batches."""


@dataclass(frozen=True, slots=True)
class Order:
    """The samples of every step: a fresh seeded shuffle each epoch, cut into batches.

    The samples that do not fill the last batch of an epoch rest until the next shuffle, so that every step
    weighs the same; a set smaller than one batch is one batch. With `chances` samples are drawn with replacement.
    """

    samples: int
    batch: int
    seed: int
    chances: tuple[float, ...] | None = None  # of each sample to be drawn; None: each once an epoch

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return max(1, self.samples // self.batch)

    def at(self, step: int) -> NDArray[np.int64]:
        """Return the indices of the samples of one step, counted from the beginning of the run."""
        epoch, within = divmod(step, self.steps)
        start = within * self.batch
        drawn = _shuffled(self.samples, derive(self.seed, "order", epoch), self.chances)
        return drawn[start : start + self.batch]


@lru_cache(maxsize=2)
def _shuffled(samples: int, seed: int, chances: tuple[float, ...] | None) -> NDArray[np.int64]:
    draw = np.random.default_rng(seed)
    return draw.permutation(samples) if chances is None else draw.choice(samples, samples, p=chances)


class _Seen(NamedTuple):
    """An image ready for a batch."""

    pixels: torch.Tensor
    target: Any
    id: str
    geometry: Geometry


class ImageDataset(Dataset["_Seen | VitrailError"]):
    """The rows of a manifest as network inputs; asked with (index, key): key < 0 means as at prediction.

    Truths are read where images are, in a loader's worker; only in training a truth moves with its image.
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
        """Return an image, or why there is none: raised in a worker it would come out wrapped in a traceback."""
        try:
            return self._seen(*at)
        except VitrailError as error:
            return error

    def _seen(self, index: int, key: int) -> _Seen:
        row = self.rows[index]
        steps = self.preprocess
        image = load(self.root, row.path, steps.channels, row.part, raw=steps.raw).image
        target = read_truth(self.targets, row, self.root)
        shape, augment = (image.shape[0], image.shape[1]), self.augment if key >= 0 else None
        if augment is None:
            view = steps.whole(shape).view(shape)
            return _Seen(view.image(image), target, row.id, view.geometry)

        def draw(turn: int) -> View:
            return steps.view(shape, augment, derive(key, "turn", turn) if turn else key)

        view = self.targets.view(target, draw, key)
        return _Seen(view.image(image), self.targets.transform(target, view), row.id, view.geometry)

    def collate(self, found: Sequence[_Seen | VitrailError]) -> Batch[Any] | VitrailError:
        """Stack images and truths into a batch; where one cannot be read, return the error instead."""
        batch = listed(found)
        if isinstance(batch, VitrailError):
            return batch
        return replace(batch, targets=self.targets.collate(batch.targets))


def listed(found: Sequence[_Seen | VitrailError]) -> Batch[Any] | VitrailError:
    """Stack images into a batch with their truths one by one, which in the originals' frames have many sizes."""
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
    """Return how many processes read images: as asked, or (-1) one fewer than the cores, eight at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return wanted if wanted >= 0 else max(0, min(8, cores - 1))


def _batches(
    pictures: ImageDataset, batches: Sequence[Any] | Iterator[Any], workers: int, collate: Callable[..., Any]
) -> Iterator[Batch[Any]]:
    """Yield the batches; a VitrailError names an image or a truth that cannot be read."""
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
    """Return how many of so many processes the shared memory has room for: two batches each, and one in use.

    Containers have 64 MB of it; a process that finds none ends, or waits for ever.
    """
    if not workers or not os.path.isdir(SHARED):
        return workers
    import resource  # where there is such a folder, there is this module

    steps = pictures.preprocess
    size = 4 * batch * steps.channels * steps.size[0] * steps.size[1]
    status, limit = os.statvfs(SHARED), resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    room = max(0, status.f_bavail * status.f_frsize // size - 1) // 2
    found = 0 if 0 <= limit < size else min(workers, room)
    if found < workers:
        _say_narrow(found, workers)
    return found


@lru_cache
def _say_narrow(found: int, workers: int) -> None:
    getLogger("vitrail").warning(
        "%s has room for the images of %d in place of %d processes that read them: it is slower so, and nothing else "
        "changes. Docker gives more with --shm-size=2g.",
        SHARED,
        found,
        workers,
    )


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of every batch this process computes."""

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
    """Yield every `world`-th batch of all images, in order and as at prediction; their truths are a list."""
    batch = batch if pictures.preprocess.zoom is None else 1  # each image has a size of its own
    indices = np.array_split(np.arange(len(pictures)), max(1, -(-len(pictures) // batch)))
    mine = [[(int(i), -1) for i in part] for part in indices[share.rank :: share.world] if len(part)]
    yield from _batches(pictures, mine, roomy(workers, pictures, batch), listed)
