"""Share a run on a model hub: the model, its card and its scores; images and file names only if the user asks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from vitrail.core.config import to_yaml
from vitrail.core.environment import hub_endpoint, offline
from vitrail.core.errors import RunError, SettingError
from vitrail.core.text import command
from vitrail.runs.run import Run

ALONE = ("model.safetensors", "README.md", "report.json")
"""Files that are uploaded unchanged; they hold no file names of the data and no images."""

WITH_IMAGES = ("report.html", "manifest.csv")
"""Files that show images or name them; uploaded only if the user asks."""

BESIDE_MANIFEST = ("manifest.json", "targets.jsonl")
"""Files that a manifest may need for its labels; they are uploaded with it."""


class Pushed(NamedTuple):
    """The address of an uploaded run, and its files."""

    url: str
    files: tuple[str, ...]


def parcel(run: Run, pictures: bool = False) -> dict[str, bytes | Path]:
    """Return the files to upload, by name; the recipe does not name the folder of the data.

    Raises:
        RunError: a file is missing, because the run is not finished.
    """
    names = (*ALONE, *(WITH_IMAGES if pictures else ()))
    beside = [name for name in BESIDE_MANIFEST if pictures and (run.folder / name).is_file()]
    missing = [name for name in names if not (run.folder / name).is_file()]
    if missing:
        raise RunError(
            f"{run.folder} has no {', '.join(missing)} yet. Finish it first: "
            f"{command('train', '--resume', run.folder)}"
        )
    recipe = run.recipe()
    # The report holds the name of the weights; the recipe may hold a path.
    weights = json.loads(run.report_path.read_text(encoding="utf-8"))["weights"]
    update = {
        "data": recipe.data.model_copy(update={"source": ""}),
        "model": recipe.model.model_copy(update={"weights": weights}),
    }
    shared = recipe.model_copy(update=update)
    files: dict[str, bytes | Path] = {name: run.folder / name for name in (*names, *beside)}
    files["recipe.yaml"] = to_yaml(shared).encode()
    return files


def push(run: Run, repository: str, *, private: bool = False, pictures: bool = False) -> Pushed:
    """Create the repository owner/name if it does not exist, and upload the run in one commit.

    The token is the one of `hf auth login` or HF_TOKEN.

    Raises:
        SettingError: the name is not owner/name.
        RunError: the hub cannot be reached or refuses, or the run is not finished.
    """
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", repository):
        raise SettingError(f"{repository!r} is not a repository name. Use owner/name, such as me/photos.")
    if offline():
        raise RunError("HF_HUB_OFFLINE is set, so nothing can be shared. Unset it and try again.")
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    files = parcel(run, pictures)
    api = HfApi(endpoint=hub_endpoint(), library_name="vitrail")
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.create_commit(made.repo_id, operations, commit_message=_message(run))
    except ValueError as error:  # the hub's client checks the name, too
        raise RunError(f"{repository!r} is not a repository name: {error} Use owner/name.") from error
    except Exception as error:  # the client raises errors of several libraries: HTTP, files, uploads
        way_out = f"Check whether {hub_endpoint()} can be reached from here"
        if isinstance(error, HfHubHTTPError | LocalTokenNotFoundError):
            way_out = "Log in with `hf auth login`, check the name"
        raise RunError(
            f"{run.folder} could not be shared as {repository}: {_first_line(error).rstrip('.')}. "
            f"{way_out}, and try again."
        ) from error
    return Pushed(f"{hub_endpoint()}/{made.repo_id}", tuple(files))


def _message(run: Run) -> str:
    verdict: str = json.loads(run.report_path.read_text(encoding="utf-8")).get("verdict", "A run of vitrail")
    return verdict.split(";")[0][:120]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
