"""A run folder: created once, never overwritten, with every file written in one step."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vitrail.core.config import read, read_mapping, to_yaml
from vitrail.core.environment import runs_dir
from vitrail.core.errors import RunError, VitrailError
from vitrail.core.files import append_line, replace, write_text
from vitrail.core.text import command, reason
from vitrail.data.labels import natural, shorten
from vitrail.data.manifest import Manifest
from vitrail.data.rasters.sources import short_name
from vitrail.runs.history import effective
from vitrail.runs.recipe import SCHEMA, Recipe


class ReportError(RunError):
    """The model is trained and kept, but its report could not be made."""

    def __init__(self, run: Run, error: Exception, again: str) -> None:
        why = str(error).rstrip(".") if isinstance(error, VitrailError) else reason(error)
        super().__init__(
            f"The model is trained and kept in {run.folder}, but its report could not be made: {why}. {again}"
        )
        self.run = run


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder and its files."""

    folder: Path

    @property
    def recipe_path(self) -> Path:
        """All settings of the run."""
        return self.folder / "recipe.yaml"

    @property
    def model_path(self) -> Path:
        """The best weights, with everything that prediction needs."""
        return self.folder / "model.safetensors"

    @property
    def manifest_path(self) -> Path:
        """The images of the run, with their splits."""
        return self.folder / "manifest.csv"

    @property
    def history_path(self) -> Path:
        """One event per line, append-only."""
        return self.folder / "history.jsonl"

    @property
    def report_path(self) -> Path:
        """The final scores as JSON."""
        return self.folder / "report.json"

    @property
    def result_path(self) -> Path:
        """The sections of the report as data, with the names of its images; pages are laid out from it."""
        return self.folder / "result.json"

    @property
    def live_path(self) -> Path:
        """Some validation images with the predictions of the last validation, for tasks that draw them."""
        return self.folder / "live.png"

    @property
    def state_path(self) -> Path:
        """The last weights, optimiser, average and counters, for resuming."""
        return self.folder / "state" / "last.safetensors"

    def recipe(self) -> Recipe:
        """Read the recipe. RunError for another schema version."""
        values = read_mapping(self.recipe_path)
        if values.get("schema_version") != SCHEMA:
            raise RunError(
                f"{self.folder} was written with schema {values.get('schema_version')}; this vitrail reads {SCHEMA}. "
                "Use the vitrail that wrote it, or train again."
            )
        return read(Recipe, values, str(self.recipe_path))

    def manifest(self, root: Path) -> Manifest:
        """Read the manifest; its paths are relative to `root`. RunError if it is missing."""
        if not self.manifest_path.is_file():
            raise RunError(
                f"{self.manifest_path}, the list of the run's images, is missing. vitrail predict and explain work "
                "without it; eval and inspect take other images by name, export takes them with --data. Train again "
                "to get a new list."
            )
        return Manifest.read(self.manifest_path, root)

    def root(self) -> Path:
        """Return the folder of the manifest's paths. RunError if neither state nor history holds it."""
        try:
            with safe_open(self.state_path, framework="pt") as handle:
                return Path(json.loads(handle.metadata()["counters"])["root"])
        except (OSError, SafetensorError, KeyError):
            for event in self.history():  # a draft has no saved state
                if "root" in event:
                    return Path(event["root"])
            raise RunError(
                f"{self.folder} does not hold the folder of its images any more. Name it: "
                f"{command('eval', self.folder, 'FOLDER')}"
            ) from None

    def history(self) -> list[dict[str, Any]]:
        """Return all events, without an incomplete last line of a killed run."""
        if not self.history_path.exists():
            return []
        events = []
        for line in self.history_path.read_text(encoding="utf-8").splitlines():
            try:
                events.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return events

    def effective_history(self) -> list[dict[str, Any]]:
        """Return the events without the steps that a later resume repeated, so that each step occurs once."""
        return effective(self.history())

    def drop_stale_report(self) -> None:
        """Remove reports that are older than the present model."""
        with suppress(OSError):
            now = self.model_path.stat().st_mtime
            reports = (
                self.report_path,
                self.result_path,
                self.folder / "report.html",
                self.folder / "README.md",
            )
            for path in reports:
                if path.exists() and path.stat().st_mtime < now:
                    path.unlink()

    def log(self, kind: str, values: dict[str, Any]) -> None:
        """Append one event."""
        append_line(self.history_path, {"event": kind, **values})

    def save_state(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """Write the state for resuming in one step: tensors, and counters as JSON in the header."""
        metadata = {"counters": json.dumps(counters)}
        replace(self.state_path, lambda temporary: save_file(tensors, temporary, metadata=metadata))

    def load_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read the tensors and counters of `save_state`. RunError if the file is missing or broken."""
        try:
            with safe_open(self.state_path, framework="pt") as handle:
                counters = json.loads(handle.metadata()["counters"])
                return {key: handle.get_tensor(key) for key in handle.keys()}, counters  # noqa: SIM118
        except FileNotFoundError:
            raise RunError(
                f"{self.folder} has no saved state yet, so there is nothing to resume. Train again from the start."
            ) from None
        except (SafetensorError, OSError) as error:
            raise RunError(f"{self.state_path} is broken ({error}). Train again from the start.") from None


def create_run(recipe: Recipe, out: str | None, command: str) -> Run:
    """Create a new run folder: `out`, or runs/<name of the data>, with -2, -3 … if it already exists."""
    run = Run(new_folder(Path(out) if out else runs_dir() / (short_name(recipe.data.source) or "run")))
    write_text(run.recipe_path, to_yaml(recipe, f"Made by: {command}"))
    return run


def new_folder(wanted: Path) -> Path:
    """Create a folder of results, with -2, -3 … if it already exists, and return it. RunError if it cannot be made."""
    for number in range(1, 10_000):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            why = error.strerror or str(error)
            raise RunError(f"{folder} cannot be created: {why}. Choose another place with --out.") from None
        return folder
    raise RunError(f"There are too many runs with the name {wanted}. Choose another name with --out.")


def elsewhere(run: Run, out: str | None) -> list[str]:
    """Return a line with the folder of a run, if the wanted folder `out` already existed."""
    if not out or Path(out) == run.folder:
        return []
    return [f"{out} already exists; this run is kept in {run.folder}."]


def open_run(path: str | Path) -> Run:
    """Open an existing run folder. RunError if it is not a run folder or has another schema version."""
    run = Run(Path(path))
    if not run.recipe_path.is_file():
        within, beside = (list(folder.glob("*/recipe.yaml")) for folder in (run.folder, run.folder.parent))
        runs = shorten(sorted((str(recipe.parent) for recipe in within or beside), key=natural), 5)
        examples = f": {runs}" if runs else ", such as runs/photos"
        raise RunError(
            f"{path} is not a run folder (it has no recipe.yaml). Give a folder that a training wrote{examples}."
        )
    run.recipe()
    return run
