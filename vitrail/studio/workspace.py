"""The folder of a studio: data sets, runs, and the studio's own files."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from vitrail.core.errors import DataError, RunError
from vitrail.core.files import refuse_unwritable_folder

NAME_LENGTH = 80
"""Largest length of a name in characters."""


@dataclass(frozen=True)
class Workspace:
    """A studio's folder.

    `data/` holds the data sets that were uploaded, `runs/` the runs, also those that were started from a terminal in
    this folder. `.vitrail/` holds what can be made again, and the queue.
    """

    folder: Path

    @property
    def data(self) -> Path:
        """The folder of uploaded data sets."""
        return self.folder / "data"

    @property
    def runs(self) -> Path:
        """The folder of the runs."""
        return self.folder / "runs"

    @property
    def own(self) -> Path:
        """The folder of the studio's own files."""
        return self.folder / ".vitrail"

    @property
    def database(self) -> Path:
        """The queue and the index."""
        return self.own / "studio.db"

    @property
    def logs(self) -> Path:
        """The output of jobs."""
        return self.own / "jobs"

    @property
    def connections(self) -> Path:
        """The list of connections to the outside."""
        return self.own / "connections.jsonl"

    def make(self) -> None:
        """Create the folders. RunError if that is not possible."""
        for folder in (self.data, self.runs, self.own, self.logs):
            refuse_unwritable_folder(folder)
            folder.mkdir(parents=True, exist_ok=True)

    def run(self, name: str) -> Path:
        """Return the folder of a run. RunError if there is none with this name, or it lies outside."""
        folder = self.runs / safe_name(name)
        if not (folder / "recipe.yaml").is_file() or not inside(folder, self.runs):
            raise RunError(f"There is no run called {name!r} in {self.runs}.")
        return folder


def safe_name(text: str) -> str:
    """Return a user's text as the name of a file or folder, on any system, that never leaves its folder.

    Raises:
        DataError: nothing of it can be used.
    """
    name = unicodedata.normalize("NFC", text).replace("\\", "/").rstrip("/").rpartition("/")[2]
    name = re.sub(r'[\x00-\x1f\x7f<>:"|?*]', "", name).strip(" .")[:NAME_LENGTH].rstrip(" .")
    if not name:
        raise DataError(f"{text!r} cannot be the name of a folder. Use letters and digits.")
    return name


def inside(path: Path, folder: Path) -> bool:
    """Whether a path, with all links followed, lies in a folder."""
    return path.resolve().is_relative_to(folder.resolve())
