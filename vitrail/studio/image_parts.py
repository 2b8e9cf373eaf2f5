"""The parts of a studio that hold images: data sets, their checks, thumbnails, uploads and the bin."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from vitrail.studio.checks import Checks
from vitrail.studio.database import Database
from vitrail.studio.datasets import Datasets
from vitrail.studio.jobs import Queue
from vitrail.studio.recycle_bin import RecycleBin
from vitrail.studio.thumbnails import Thumbnails, Turns
from vitrail.studio.uploads import Uploads
from vitrail.studio.workspace import Workspace


class _Threads:
    """How many threads may decode: one while a training runs, else one a core. It looks once a second."""

    def __init__(self, queue: Queue) -> None:
        self._queue, self._looked, self._number = queue, -1.0, 1

    def __call__(self) -> int:
        now = time.monotonic()
        if now > self._looked + 1:
            training = any(job.state == "running" for job in self._queue.jobs(20))
            self._looked, self._number = now, 1 if training else os.cpu_count() or 1
        return self._number


@dataclass(frozen=True)
class ImageParts:
    """What the pages about images use."""

    datasets: Datasets
    checks: Checks
    thumbnails: Thumbnails
    uploads: Uploads
    bin: RecycleBin

    @classmethod
    def of(cls, workspace: Workspace, database: Database, queue: Queue) -> ImageParts:
        """Return the parts of a workspace; thumbnails take one thread while a training runs, else one a core."""
        datasets = Datasets(workspace, database)

        thumbnails = Thumbnails(Turns(_Threads(queue)))
        return cls(datasets, Checks(datasets), thumbnails, Uploads(datasets), RecycleBin(datasets))

    def start(self) -> None:
        """Remove what an earlier studio left half done, and what has been in the bin for long."""
        self.uploads.clear()
        self.bin.empty_old()

    def close(self) -> None:
        """End the work in the background."""
        self.checks.close()
