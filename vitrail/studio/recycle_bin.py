"""Deleted data sets, kept for thirty days in `.vitrail/bin`: one folder each, with a note of what it was."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from vitrail.core.errors import RunError
from vitrail.core.files import write_json, writing
from vitrail.data.options import LayoutOptions
from vitrail.studio.dataset_table import Dataset
from vitrail.studio.datasets import Datasets

DAYS = 30
"""Days after which what was deleted is gone."""

_NOTE, _HISTORY = "deleted.json", "decisions.jsonl"


@dataclass(frozen=True)
class Deleted:
    """A deleted data set: the key of its folder in the bin, what it was, and when it was deleted."""

    key: str
    dataset: Dataset
    time: float


class RecycleBin:
    """The bin of a workspace."""

    def __init__(self, datasets: Datasets) -> None:
        self.datasets = datasets
        self.folder = datasets.workspace.own / "bin"

    def delete(self, dataset: Dataset) -> str:
        """Move a data set into the bin and return its key; of a place on this machine, only the entry in the list."""
        key = f"{time.time_ns():x}"
        there = self.folder / key
        with writing(there):
            there.mkdir(parents=True)
        write_json(there / _NOTE, {"dataset": asdict(dataset), "time": time.time()})
        if dataset.uploaded:
            history = self.datasets.history_file(dataset)
            with writing(there):
                os.replace(self.datasets.place(dataset), there / "images")
                if history.exists():
                    os.replace(history, there / _HISTORY)
        self.datasets.forget(dataset)
        return key

    def restore(self, key: str) -> Dataset:
        """Put a data set back, under its name or, if that is taken by now, a similar one. RunError if it is gone."""
        deleted = next((one for one in self.content() if one.key == key), None)
        if deleted is None:
            raise RunError(f"This is no longer in the bin: it is emptied after {DAYS} days.")
        there, dataset = self.folder / key, deleted.dataset
        name = self.datasets.free_name(dataset.name)
        source, workspace = dataset.source, self.datasets.workspace
        if dataset.uploaded and (workspace.folder / source).exists():
            source = f"data/{name}"
        back = Dataset(name, source, dataset.uploaded, dataset.options, time.time())
        if dataset.uploaded:
            folder = workspace.folder / source
            with writing(folder):
                os.replace(there / "images", folder)
                if (there / _HISTORY).exists():
                    os.replace(there / _HISTORY, self.datasets.history_file(back))
        self.datasets.remember(back)
        shutil.rmtree(there, ignore_errors=True)
        return back

    def content(self) -> list[Deleted]:
        """Return what is in the bin, the last deleted first."""
        found = [_read(one) for one in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted((one for one in found if one is not None), key=lambda one: -one.time)

    def empty_old(self) -> None:
        """Delete for good what has been in the bin for thirty days."""
        for one in self.content():
            if time.time() - one.time > DAYS * 24 * 3600:
                shutil.rmtree(self.folder / one.key, ignore_errors=True)


def _read(folder: Path) -> Deleted | None:
    try:
        values = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
        dataset = values["dataset"]
        options = LayoutOptions(**dataset["options"])
        return Deleted(folder.name, Dataset(**dataset | {"options": options}), values["time"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not whole: a deletion that was cut off; its images are still there
