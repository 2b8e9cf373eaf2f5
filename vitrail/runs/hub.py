"""Shares a run on a model hub: the model, its card and its scores; never images or paths unless asked."""

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
"""What travels as it is: none of it names a file of the data or shows an image."""

WITH_IMAGES = ("report.html", "manifest.csv")
"""What shows images, or names them: only where the user asks."""


BESIDE_MANIFEST = ("manifest.json", "targets.jsonl")
"""What stands beside the manifest where its truths need it: it goes where the manifest goes."""


class Pushed(NamedTuple):
    """Where a run now is, and which files went there."""

    url: str
    files: tuple[str, ...]


def parcel(run: Run, pictures: bool = False) -> dict[str, bytes | Path]:
    """Return what a share holds, by name; the recipe goes without the folder of the data.

    Raises:
        RunError: the run is not finished: a file is missing.
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
    weights = json.loads(run.report_path.read_text(encoding="utf-8"))[
        "weights"
    ]  # by name; the recipe's may be a path
    update = {
        "data": recipe.data.model_copy(update={"source": ""}),
        "model": recipe.model.model_copy(update={"weights": weights}),
    }
    shared = recipe.model_copy(update=update)
    files: dict[str, bytes | Path] = {name: run.folder / name for name in (*names, *beside)}
    files["recipe.yaml"] = to_yaml(shared).encode()
    return files


def push(run: Run, repository: str, *, private: bool = False, pictures: bool = False) -> Pushed:
    """Create the repository owner/name where there is none and put the run into it in one commit.

    The token is the one that `hf auth login` (or HF_TOKEN) left.

    Raises:
        SettingError: the name is not owner/name.
        RunError: the hub cannot be reached or refuses, or the run is not finished.
    """
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", repository):
        raise SettingError(f"{repository!r} cannot be a repository. Name it owner/name, such as me/photos.")
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
    except ValueError as error:  # what the hub's own client thinks of a name
        raise RunError(f"{repository!r} cannot be a repository: {error} Name it owner/name.") from error
    except Exception as error:  # the client lets through errors of several libraries: HTTP, files, uploads
        refused = isinstance(error, HfHubHTTPError | LocalTokenNotFoundError)
        way_out = (
            "Log in with `hf auth login`, check the name"
            if refused
            else f"Look whether {hub_endpoint()} can be reached from here"
        )
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
