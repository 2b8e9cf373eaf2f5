"""Models of one's own: a network with its settings, and weights where there are some, under a name in `models/`.

Each is a folder with `recipe.yaml`, which `vitrail train --recipe` takes, and perhaps `model.safetensors`, which
`--weights` takes. So a terminal can use it, too.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vitrail.core.config import read_mapping
from vitrail.core.errors import DataError, RunError, VitrailError
from vitrail.core.files import replace, replace_folder, write_json, write_text, writing
from vitrail.runs.run_archive import refuse_large, refuse_own_code
from vitrail.studio.run_files import RunFiles
from vitrail.studio.workspace import Workspace, inside, safe_name

RECIPE, WEIGHTS, ABOUT = "recipe.yaml", "model.safetensors", "about.json"

PARTS = (RECIPE, WEIGHTS, ABOUT)
"""The files of a model; nothing else is packed or unpacked."""

LEFT_OUT = ("data", "recipe")
"""Parts of a run's recipe that belong to its images."""


@dataclass(frozen=True)
class OwnModel:
    """A saved model: the network, whether it has weights, and what it was made of, such as a run."""

    name: str
    network: str
    weights: bool
    made_of: str
    saved: float

    @property
    def folder(self) -> str:
        """Where it lies, as a command in the studio's folder names it."""
        return f"models/{self.name}"

    def options(self) -> dict[str, str]:
        """Return the options of a training that begins with it."""
        weights = {"weights": f"{self.folder}/{WEIGHTS}"} if self.weights else {}
        return {"recipe": f"{self.folder}/{RECIPE}", **weights}


class OwnModels:
    """The saved models of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.place = workspace.folder / "models"
        self.bin = workspace.own / "deleted-models"

    def all(self) -> list[OwnModel]:
        """Return the saved models, the newest first."""
        found = []
        for path in self.place.glob(f"*/{RECIPE}"):
            if inside(path, self.place):
                with suppress(VitrailError):  # a broken folder put there by hand must not hide the others
                    found.append(self._read(path.parent))
        return sorted(found, key=lambda one: -one.saved)

    def get(self, name: str) -> OwnModel:
        """Return a saved model. RunError if there is none with this name."""
        return self._read(self._folder(name))

    def save_network(self, network: str, name: str) -> OwnModel:
        """Save a network with its usual settings."""
        return self._save(name, {"model": {"name": network}}, None, network)

    def save_run(self, run: RunFiles, name: str) -> OwnModel:
        """Save the network of a run with its settings and its weights.

        Raises:
            RunError: the run has no model yet.
        """
        if not run.model.is_file():
            raise RunError(f"{run.name} has no model yet. Let its training finish the first epoch.")
        recipe = read_mapping(run.folder / "recipe.yaml")
        recipe = {key: value for key, value in recipe.items() if key not in LEFT_OUT}
        recipe["model"] = {key: value for key, value in recipe.get("model", {}).items() if key != "weights"}
        return self._save(name, recipe, run.model, run.name)

    def rename(self, name: str, wanted: str) -> OwnModel:
        """Give a saved model another name."""
        folder, new = self._folder(name), self.place / safe_name(wanted)
        if new != folder:
            self._refuse_taken(new)
            with writing(new):
                os.replace(folder, new)
        return self._read(new)

    def delete(self, name: str) -> str:
        """Move a saved model into the bin and return the key to take it back."""
        folder = self._folder(name)
        key = f"{time.time_ns():x}"
        with writing(self.bin):
            (self.bin / key).mkdir(parents=True)
            os.replace(folder, self.bin / key / folder.name)
        return key

    def restore(self, key: str) -> OwnModel:
        """Take a deleted model back. RunError if it is gone, or its name is taken."""
        found = list((self.bin / key).iterdir()) if key.isalnum() and (self.bin / key).is_dir() else []
        if not found:
            raise RunError("This model is no longer in the bin.")
        self._refuse_taken(self.place / found[0].name)
        with writing(self.place):
            self.place.mkdir(exist_ok=True)
            os.replace(found[0], self.place / found[0].name)
        (self.bin / key).rmdir()
        return self.get(found[0].name)

    def pack(self, name: str, file: Path) -> Path:
        """Write a saved model as one file, and return its path."""
        folder = self._folder(name)

        def write(temporary: Path) -> None:
            with zipfile.ZipFile(temporary, "w") as archive:
                for part in PARTS:
                    if (folder / part).is_file():
                        archive.write(folder / part, f"{folder.name}/{part}")

        replace(file, write)
        return file

    def unpack(self, file: Path, stem: str) -> OwnModel:
        """Make a saved model of a packed one, under its name or a free one like it.

        Raises:
            DataError: the file is no packed model, or is damaged.
            RunError: it is too large, or names code to import.
        """
        try:
            with zipfile.ZipFile(file) as archive:
                names = {Path(one).name: one for one in archive.namelist() if Path(one).name in PARTS}
                refuse_large({part: archive.getinfo(one) for part, one in names.items()}, stem)
                if RECIPE not in names:
                    raise DataError(
                        "This is no saved model: it has no recipe. A packed run is opened at Models."
                    )
                folder = self._free(next(iter(Path(names[RECIPE]).parts[:-1]), stem))

                def fill(draft: Path) -> None:
                    _extract(archive, names, draft)
                    self._read(draft)
                    refuse_own_code(draft)

                replace_folder(folder, fill)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error):
            raise DataError(
                "This is no saved model: the file is no zip, or is damaged. Send it again."
            ) from None
        return self._read(folder)

    def _save(self, name: str, recipe: dict[str, Any], weights: Path | None, made_of: str) -> OwnModel:
        folder = self.place / safe_name(name)
        self._refuse_taken(folder)

        def write(draft: Path) -> None:
            write_text(draft / RECIPE, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
            if weights is not None:
                shutil.copyfile(weights, draft / WEIGHTS)
            write_json(draft / ABOUT, {"made_of": made_of, "saved": time.time()})

        replace_folder(folder, write)
        return self._read(folder)

    def _folder(self, name: str) -> Path:
        folder = self.place / safe_name(name)
        if not (folder / RECIPE).is_file() or not inside(folder, self.place):
            raise RunError(f"There is no saved model called {name!r}.")
        return folder

    def _free(self, wanted: str) -> Path:
        name = safe_name(wanted)
        names = (name, *(f"{name}-{number}" for number in range(2, 10_000)))
        return next(self.place / one for one in names if not (self.place / one).exists())

    def _refuse_taken(self, folder: Path) -> None:
        if folder.exists():
            raise DataError(f"There is a saved model called {folder.name} already. Choose another name.")

    def _read(self, folder: Path) -> OwnModel:
        model = read_mapping(folder / RECIPE).get("model")
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            raise DataError(
                f"The recipe of {folder.name} names no network. Write model: {{name: vit_s16}} into it."
            )
        about = _about(folder)
        saved = float(about.get("saved", (folder / RECIPE).stat().st_mtime))
        weights = (folder / WEIGHTS).is_file()
        return OwnModel(folder.name, model["name"], weights, str(about.get("made_of", "")), saved)


def _about(folder: Path) -> dict[str, Any]:
    """Return what is written about a saved model; nothing for a folder that was put there by hand."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        float(about.get("saved", 0))
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return dict(about)


def _extract(archive: zipfile.ZipFile, names: dict[str, str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, member in names.items():
        with archive.open(member) as source, (folder / part).open("wb") as target:
            shutil.copyfileobj(source, target)
