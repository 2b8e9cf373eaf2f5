"""The sample project: handwritten digits with a finished run, so that the first page is never empty.

`sample/run.zip` holds the files of a small run; `bench/studio_sample.py` made it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from importlib.resources import as_file, files
from pathlib import Path
from zipfile import ZipFile

from vitrail.core.cache import place
from vitrail.core.files import replace_folder
from vitrail.studio.database import Database
from vitrail.studio.dataset_table import Dataset
from vitrail.studio.datasets import Datasets
from vitrail.studio.workspace import Workspace

SOURCE = "digits"
"""The built-in data set of the sample."""

RUN = "sample"
"""The name of its run."""

PLACE = "IMAGES"
"""Stands in the sample's history for the folder of its images."""


def add_sample(workspace: Workspace, database: Database) -> None:
    """Add the sample to a new studio; a folder that holds images or runs stays as it is.

    Raises:
        RunError: the folder cannot be written.
    """
    if any(workspace.runs.iterdir()) or any(workspace.data.iterdir()):
        return
    Datasets(workspace, database).remember(Dataset(SOURCE, SOURCE, uploaded=False, opened=time.time()))
    images = place("data") / SOURCE
    if not images.exists():
        threading.Thread(target=_write_images, args=(images,), daemon=True).start()
    replace_folder(workspace.runs / RUN, lambda folder: _unpack(folder, images))


def _write_images(images: Path) -> None:
    """Write the images in a process of its own: the library that holds them takes a second to import."""
    code = "import sys, pathlib, vitrail.data.builtin as b; b.materialise(sys.argv[1], pathlib.Path(sys.argv[2]))"
    words = [sys.executable, "-c", code, SOURCE, str(images.parent)]
    subprocess.run(words, capture_output=True, check=False)


def _unpack(folder: Path, images: Path) -> None:
    with as_file(files("vitrail.studio") / "sample" / "run.zip") as packed, ZipFile(packed) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            if name == "history.jsonl":
                data = data.replace(PLACE.encode(), json.dumps(str(images))[1:-1].encode())
            (folder / Path(name).name).write_bytes(data)
