"""Take in files of a data set: each arrives whole or not at all, under a name that cannot leave the folder."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path, PurePosixPath
from threading import Lock

from starlette.concurrency import run_in_threadpool

from vitrail.core.errors import DataError, RunError
from vitrail.core.files import writing
from vitrail.core.text import one_line
from vitrail.data import archives
from vitrail.data.walk_files import is_hidden
from vitrail.studio.dataset_table import Dataset
from vitrail.studio.datasets import Datasets
from vitrail.studio.workspace import inside

LARGEST_ARCHIVE = 1 << 36
"""Largest size of a zip or tar in bytes: 64 GB."""

MOST_FILES = 1_000_000
"""Largest number of files of a data set."""

RESERVE = 64 << 20
"""Bytes of the disk that stay free, for the queue and the runs."""

LATEST = 10**14
"""Latest time of a change in milliseconds: the year 5138."""

_LONGEST = 255  # bytes of a name on usual file systems
_DEEPEST = 32


@dataclass(frozen=True)
class Incoming:
    """A file that is announced: its path in the data set, its size, and when it was changed, in milliseconds."""

    path: str
    size: int
    modified: int


class Uploads:
    """Receives files. What arrives is written beside the data and moved into it when it is whole."""

    def __init__(self, datasets: Datasets, reserve: int = RESERVE) -> None:
        self.datasets, self.reserve = datasets, reserve
        self.folder = datasets.workspace.own / "uploads"
        self._numbers: dict[str, int] = {}
        self._storing = Lock()

    def clear(self) -> None:
        """Remove what was cut off by the end of an earlier studio."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def missing(self, dataset: Dataset, files: Sequence[Incoming]) -> tuple[list[int], dict[int, str]]:
        """Return which of the files have not arrived yet, and which are refused, with the reason."""
        wanted, refused = [], {}
        for number, one in enumerate(files):
            try:
                target = self._target(dataset, one.path)
                _refuse_large(one.path, one.size)
            except DataError as error:
                refused[number] = str(error)
                continue
            if _arrived(target, one) is None:
                wanted.append(number)
        return wanted, refused

    async def receive(self, dataset: Dataset, file: Incoming, body: AsyncIterator[bytes]) -> str:
        """Write one file and return its path in the data set; another file of its name keeps its place.

        Raises:
            DataError: the name or the size is refused, or it is cut off.
            RunError: the disk is full, or cannot be written.
        """
        target = await run_in_threadpool(self._ready, dataset, file)
        stored = await run_in_threadpool(_arrived, target, file)
        if stored is None:
            draft = self.folder / f"{uuid.uuid4().hex}{_packing(target.name)}"
            try:
                with writing(target):
                    await _pour(draft, file, body)
                    stored = await run_in_threadpool(self._keep, draft, target, file)
            finally:
                draft.unlink(missing_ok=True)
            self._numbers[dataset.name] += 1
            self.datasets.changed(dataset)
        return stored.relative_to(self.datasets.place(dataset)).as_posix()

    def _ready(self, dataset: Dataset, file: Incoming) -> Path:
        """Return where a file goes. VitrailError if it cannot be taken in."""
        target = self._target(dataset, file.path)
        self._refuse_many(dataset)
        self._refuse_full(file.size)
        _refuse_large(file.path, file.size)
        with writing(target):
            self.folder.mkdir(parents=True, exist_ok=True)
        return target

    def _keep(self, draft: Path, target: Path, file: Incoming) -> Path:
        """Move a whole file to its place and return it."""
        _refuse_broken(draft, target)
        os.utime(draft, ns=(file.modified * 1_000_000, file.modified * 1_000_000))
        with self._storing:  # a disk without links has a moment between looking and writing
            return _store(draft, target)

    def _target(self, dataset: Dataset, path: str) -> Path:
        """Return where a file goes. DataError for a name that is refused, or that leads out of the data set."""
        if not dataset.uploaded:
            raise DataError(f"{dataset.name} is a place of your own: put images there yourself.")
        folder = self.datasets.place(dataset)
        target = folder / safe_path(path)
        if not inside(target.parent, folder) or target.is_symlink():
            raise DataError(f"{one_line(path)} leads out of the images through a link. Drop it elsewhere.")
        return target

    def _refuse_many(self, dataset: Dataset) -> None:
        if dataset.name not in self._numbers:
            place = self.datasets.place(dataset)
            self._numbers.setdefault(dataset.name, sum(len(files) for _, _, files in os.walk(place)))
        if self._numbers[dataset.name] >= MOST_FILES:
            raise DataError(
                f"{dataset.name} holds {MOST_FILES:,} files, the most that the studio takes. "
                "Name the folder as a place."
            )

    def _refuse_full(self, size: int) -> None:
        free = shutil.disk_usage(self.datasets.workspace.data).free
        if size > free - self.reserve:
            raise RunError(
                f"The disk is full: {max(0, free - self.reserve) >> 20:,} MB are left, {max(1, size >> 20):,} MB are "
                "needed. Free some disk space, then drop the same folder again: what has arrived is not sent twice."
            )


def safe_path(path: str) -> PurePosixPath:
    """Return the path of a file inside a data set, unchanged. DataError for one that is not plainly inside."""
    parts = path.split("/")
    shown = one_line(path)[-120:]
    if not path or any(part in {"", ".", ".."} for part in parts) or len(parts) > _DEEPEST:
        raise DataError(f"{shown!r} is no path of a file in a folder. Drop the folder itself.")
    if any(_unprintable(part) or len(part.encode("utf-8", "replace")) > _LONGEST for part in parts):
        raise DataError(f"{shown} has a name that cannot be kept. Rename it, then drop it again.")
    if is_hidden(path):
        raise DataError(f"{shown} is a hidden or system file and was left out.")
    return PurePosixPath(*parts)


def _unprintable(part: str) -> bool:
    return one_line(part) != part or "\\" in part


def _refuse_large(path: str, size: int) -> None:
    most = LARGEST_ARCHIVE if archives.is_archive(path) else archives.MOST_BYTES
    if size > most:
        raise DataError(
            f"{one_line(path)} has {size >> 20:,} MB, more than the {most >> 20:,} MB of a file. Leave it out."
        )


def _same(target: Path, file: Incoming) -> bool:
    """Whether a file has arrived before: the same size and time of change, as rsync looks."""
    try:
        status = target.stat()
    except OSError:
        return False
    return status.st_size == file.size and abs(status.st_mtime_ns // 1_000_000 - file.modified) < 2


def _arrived(target: Path, file: Incoming) -> Path | None:
    """Return where a file that has arrived before is: under its name, or a number that it got as its name was taken."""
    taken = takewhile(os.path.exists, _names(target))  # False for a name that a number made too long
    return next((one for one in taken if _same(one, file)), None)


def _names(target: Path) -> Iterator[Path]:
    """Yield the names that a file may get: its own, then with numbers; an archive keeps its suffix."""
    suffix = _packing(target.name) or target.suffix
    stem = target.name[: len(target.name) - len(suffix)]
    yield target
    for number in count(2):
        yield target.with_name(f"{stem} ({number}){target.name[len(stem) :]}")


async def _pour(draft: Path, file: Incoming, body: AsyncIterator[bytes]) -> None:
    size = 0
    with draft.open("wb") as handle:
        async for chunk in body:
            size += len(chunk)
            if size > file.size:
                break
            handle.write(chunk)
    if size != file.size:
        raise DataError(f"{one_line(file.path)} was cut off. Drop it again.")


def _packing(name: str) -> str:
    """Return the suffix by which an archive is known; "" for other files."""
    return next((one for one in archives.SUFFIXES if name.lower().endswith(one)), "")


def _refuse_broken(draft: Path, target: Path) -> None:
    """Refuse an archive that is broken or a bomb, before it is among the images."""
    if archives.is_archive(target.name):
        try:
            archives.members(draft)
        except DataError as error:
            raise DataError(str(error).replace(str(draft), target.name)) from error


def _store(draft: Path, target: Path) -> Path:
    """Move a whole file to its place; a name that is taken gets a number, so that nothing is overwritten."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for free in _names(target):
        try:
            os.link(draft, free)  # fails if it exists: no moment between looking and writing
            return free
        except FileExistsError:
            continue
        except OSError:  # a disk without links
            if not free.exists():
                os.replace(draft, free)
                return free
    raise AssertionError("there is always another number")
