"""A run as one zip file: pack it for another computer, and open such a file as a run again. No torch.

Only the known files of a run are taken, each under its own name, so nothing in a file from elsewhere can be written
outside the new run folder or be executed. Runs with code of their own (`module:Class`) are refused.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shutil import copyfileobj
from typing import Any

from vitrail.core.config import read_mapping
from vitrail.core.errors import RunError, VitrailError
from vitrail.core.files import replace, replace_folder

NEEDED = ("recipe.yaml", "model.safetensors")
"""The files without which there is no run."""

FILES = (
    *NEEDED,
    "README.md",
    "doubts.csv",
    "history.jsonl",
    "live.png",
    "manifest.csv",
    "manifest.json",
    "report.html",
    "report.json",
    "result.json",
    "targets.jsonl",
)
"""The files of a run that are packed; not the state for resuming, which is larger than all others."""

SAMPLES = "samples"
"""The folder of sample images in a packed run, which are there only if someone chose them."""

SAMPLE = re.compile(r"samples/\d{1,3}\.jpg")
"""The name of a sample image."""

MOST_SAMPLES = 24

MOST_BYTES = 8 << 30
"""Largest size of all files of a packed run together: 8 GB."""

SMALL = 64 << 20
"""Below this size in bytes, a high compression ratio is harmless: histories and tables compress well."""

MOST_RATIO = 200
"""Highest compression ratio of a larger file."""

HEADER_BYTES = 32 << 20
"""Largest size of the header of a model file that is read."""

OWN_CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""A name that imports code: module:Class."""

NAMES_OF_CLASSES = ("labels", "truth")
"""Keys of a task under which any text may stand."""


def pack_run(folder: Path, file: Path, samples: Sequence[bytes] = ()) -> Path:
    """Write the files of a run folder into a zip file and return its path; `samples` are JPEGs to go with it.

    Raises:
        RunError: the run has no model yet, or the file cannot be written.
    """
    _refuse_incomplete({name for name in FILES if (folder / name).is_file()}, str(folder))

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in FILES:
                if (folder / name).is_file():
                    how = zipfile.ZIP_STORED if name == "model.safetensors" else zipfile.ZIP_DEFLATED
                    archive.write(folder / name, f"{folder.name}/{name}", how)
            for number, data in enumerate(samples[:MOST_SAMPLES]):
                archive.writestr(f"{folder.name}/{SAMPLES}/{number}.jpg", data)

    replace(file, write)
    return file


def name_in(file: Path) -> str:
    """Return the name of the folder in a packed run, "" if its files lie at the top; RunError if it is no zip."""
    members = _members(file)
    return next((info.filename.split("/")[0] for info in members.values() if "/" in info.filename), "")


def unpack_run(file: Path, folder: Path) -> Path:
    """Write a packed run into a new folder, in one step, and return it.

    Raises:
        RunError: the file is no packed run, is too large, needs code of its own, or the folder exists.
    """
    members = _members(file)
    _refuse_incomplete(set(members), file.name)
    refuse_large(members, file.name)
    if folder.exists():
        raise RunError(f"{folder} exists already. Choose another name.")

    def fill(draft: Path) -> None:
        with zipfile.ZipFile(file) as archive:
            for name, info in members.items():
                (draft / name).parent.mkdir(exist_ok=True)
                with archive.open(info) as source, (draft / name).open("wb") as target:
                    copyfileobj(source, target)
        refuse_own_code(draft)

    try:
        replace_folder(folder, fill)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise RunError(f"{file.name} is damaged ({error}). Pack or copy it again.") from error
    return folder


def model_header(path: Path) -> dict[str, Any]:
    """Return the metadata of a safetensors file as text by name, without its tensors; RunError if it is broken."""
    try:
        with path.open("rb") as handle:
            size = int.from_bytes(handle.read(8), "little")
            if size > HEADER_BYTES:
                raise ValueError(f"its header would have {size:,} bytes")
            metadata = json.loads(handle.read(size)).get("__metadata__", {})
    except (OSError, ValueError, AttributeError) as error:
        raise RunError(f"{path} is not a complete model file ({error}). Copy it again.") from error
    return dict(metadata)


def refuse_own_code(folder: Path) -> None:
    """Raise a RunError if a run names code to import: a file from elsewhere must not choose what is executed."""
    model = folder / "model.safetensors"
    metadata = model_header(model) if model.is_file() else {}  # a saved network may have no weights
    try:
        stated = [read_mapping(folder / "recipe.yaml"), json.loads(metadata.get("vitrail", "{}"))]
    except (VitrailError, ValueError) as error:
        raise RunError(f"The recipe or the model of this run cannot be read: {error}") from error
    for name in _texts(
        [{key: one.get(key) for key in ("task", "model", "encoder", "name")} for one in stated]
    ):
        if OWN_CODE.fullmatch(name):
            raise RunError(
                f"This run uses code of its own ({name}), which is not opened from a file. If you trust it, copy the "
                "run folder and the code by hand."
            )


def _members(file: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the known files of a packed run by name: at the top, or all in one folder."""
    try:
        with zipfile.ZipFile(file) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise RunError(
            f"{file.name} is no zip file ({error}). Choose a run that was packed as a zip."
        ) from error
    found = [info for info in infos if info.filename.rpartition("/")[2] == NEEDED[0]]
    if len(found) != 1 or found[0].filename.count("/") > 1:
        raise RunError(f"{file.name} holds no packed run: it needs one recipe.yaml. Choose another file.")
    prefix = found[0].filename.removesuffix(NEEDED[0])
    return {
        name: info for info in infos if info.filename.startswith(prefix)
        and ((name := info.filename.removeprefix(prefix)) in FILES or SAMPLE.fullmatch(name))
    }  # fmt: skip


def _refuse_incomplete(names: set[str], called: str) -> None:
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise RunError(f"{called} has no {' and no '.join(missing)}. Choose a run that has a model.")


def refuse_large(members: Mapping[str, zipfile.ZipInfo], called: str) -> None:
    """Raise a RunError if files of a zip are too large together, or one of them is packed as only a bomb is."""
    if sum(info.file_size for info in members.values()) > MOST_BYTES:
        raise RunError(f"{called} would need more than {MOST_BYTES >> 30} GB. Copy the run folder by hand.")
    for info in members.values():
        if info.file_size > max(SMALL, MOST_RATIO * info.compress_size):
            raise RunError(f"{called} would swell as only a zip bomb does. Do not open it.")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            if key not in NAMES_OF_CLASSES:
                yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
