"""The files of a run as pages need them, read without torch, so that a page costs milliseconds."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vitrail.core.config import read_mapping
from vitrail.core.errors import DataError, RunError
from vitrail.data.manifest import Manifest, Row
from vitrail.data.own_outputs import DOUBTS, FIX
from vitrail.data.truth import Truth
from vitrail.runs.run_archive import SAMPLES, model_header
from vitrail.tasks.result import Result
from vitrail.tasks.result_file import result_from_dict

if TYPE_CHECKING:
    from vitrail.data.preprocess import Preprocess

ONE_NAME = "class"
"""The kind of truth of which an image has exactly one name, which a click can replace by another."""


UNCERTAIN = "uncertain"
"""Why `vitrail fix` lists an image whose label is more probably right than wrong."""


class LabelError(NamedTuple):
    """A probable label error of a draft: the image, its label, and what it looks like with which probability."""

    id: str
    label: str
    looks_like: str
    probability: float


@dataclass(frozen=True)
class RunFiles:
    """A run folder: its report, its images, and the description of its model."""

    folder: Path

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether there is a report."""
        return (self.folder / "report.json").is_file()

    @property
    def page(self) -> Path:
        """The report as one HTML file."""
        return self.folder / "report.html"

    @property
    def model(self) -> Path:
        """The model file."""
        return self.folder / "model.safetensors"

    def report(self) -> dict[str, Any]:
        """Return the report; RunError if the run has none yet."""
        if not self.finished:
            raise RunError(f"{self.name} is not finished, so it has no result yet. Look at its training.")
        return _json(self.folder / "report.json", _changed(self.folder / "report.json"))

    def result(self) -> Result | None:
        """Return the sections of the report; None for a run of an earlier vitrail, which kept only the page."""
        path = self.folder / "result.json"
        return result_from_dict(_json(path, _changed(path))) if path.is_file() else None

    def source(self) -> str:
        """Return the data set of the run, as the command line takes it."""
        recipe = read_mapping(self.folder / "recipe.yaml")
        return str(recipe.get("data", {}).get("source", ""))

    def header(self) -> dict[str, Any]:
        """Return the header of the model file: its name, its task and its preprocessing. RunError without a model."""
        if not self.model.is_file():
            raise RunError(f"{self.name} has no model yet. Let its training finish the first epoch.")
        header: dict[str, Any] = json.loads(model_header(self.model).get("vitrail", "{}"))
        return header

    def names(self) -> tuple[str, ...]:
        """Return the names that the model may answer."""
        task = self.header().get("task", {})
        return tuple(map(str, task.get("labels", ()) or task.get("truth", {}).get("names", ())))

    def bands(self) -> tuple[int, Preprocess | None]:
        """Return the number of channels that its model reads, and its steps if it reads files as they are.

        Photographs need no steps to be shown, and so no torch in this process.
        """
        steps = self.header().get("preprocess", {}) if self.model.is_file() else {}
        channels = int(steps.get("channels", 3))
        if not steps.get("bands") and steps.get("scale", 255) == 255 and channels in {1, 3, 4}:
            return channels, None
        from vitrail.data.preprocess import Preprocess

        return channels, Preprocess.from_dict(steps)

    def root(self) -> Path | None:
        """Return the folder that the paths of its images are relative to, or None if nothing names it.

        In a workspace that was moved, it is the place of its data set there.
        """
        stated = self._stated_root()
        if stated is None or stated.exists():
            return stated
        moved = self.folder.parent.parent / self.source()
        return moved if self.source() and moved.is_dir() else stated

    def _stated_root(self) -> Path | None:
        state = self.folder / "state" / "last.safetensors"
        if state.is_file():
            counters = json.loads(model_header(state).get("counters", "{}"))
            if "root" in counters:
                return Path(counters["root"])
        history = self.folder / "history.jsonl"
        return _root_in(history, _changed(history)) if history.is_file() else None

    def truth(self) -> Truth | None:
        """Return what the truths of its images are, or None without a manifest."""
        manifest = self._manifest()
        return None if manifest is None else manifest.truth

    def rows(self) -> Mapping[str, Row]:
        """Return its images by id; none without a manifest."""
        path = self.folder / "manifest.csv"
        return _rows(path, _changed(path)) if path.is_file() else {}

    def row(self, id: str) -> Row:
        """Return one of its images. DataError if it has none with this id."""
        row = self.rows().get(id)
        if row is None:
            raise DataError(f"{self.name} has no image {id!r}.")
        return row

    def samples(self) -> list[Path]:
        """Return the sample images that came with a packed run."""
        return sorted((self.folder / SAMPLES).glob("*.jpg"))

    def label_errors(self) -> list[LabelError]:
        """Return the probable label errors, the most probable first: the last list of `vitrail fix`, or the draft's."""
        lists = sorted((self.folder / "fix").glob("fix*.csv"), key=_changed)
        if lists:
            return _listed_by_fix(lists[-1])
        path = self.folder / "doubts.csv"
        if not path.is_file():
            return []
        with path.open(encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
        if rows and set(DOUBTS) - set(rows[0]):
            raise RunError(f"{path} is not the list of a draft. Delete it, or draft again.")
        return [
            LabelError(row["id"], row["label"], row["looks_like"], float(row["probability"])) for row in rows
        ]

    def _manifest(self) -> Manifest | None:
        path = self.folder / "manifest.csv"
        return Manifest.read(path, self.folder) if path.is_file() else None


def _listed_by_fix(path: Path) -> list[LabelError]:
    """Return the images of a list of `vitrail fix` that look like another label, in its order."""
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    if rows and set(FIX) - set(rows[0]):
        raise RunError(f"{path} is not a list of vitrail fix. Delete it, or run vitrail fix again.")
    return [
        LabelError(row["id"], row["label"], row["looks_like"], float(row["confidence"]))
        for row in rows
        if row["looks_like"] and row["why"] != UNCERTAIN
    ]


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


@lru_cache(maxsize=8)
def _json(path: Path, changed: int) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}). Evaluate the run again.") from error
    return values


@lru_cache(maxsize=4)
def _rows(path: Path, changed: int) -> Mapping[str, Row]:
    return {row.id: row for row in Manifest.read(path, path.parent).rows(state=None)}


@lru_cache(maxsize=8)
def _root_in(path: Path, changed: int) -> Path | None:
    for line in path.read_text(encoding="utf-8").splitlines():
        if '"root"' in line:
            try:
                return Path(json.loads(line)["root"])
            except (ValueError, KeyError, TypeError):
                continue  # the torn line of a killed run, or a word of another event
    return None
