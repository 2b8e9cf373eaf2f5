"""Studies with one button: a duel, a learning curve, label errors, robustness, the same training again."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from vitrail.core.errors import RunError
from vitrail.core.text import command
from vitrail.studio.app_parts import Studio, page, studio_of
from vitrail.studio.background import BackgroundCommand, Wish
from vitrail.studio.commands import Command
from vitrail.studio.routes.result import SEALED
from vitrail.studio.studies import OF_DATA, TIMES, checked_kind, page_of, words_of

router = APIRouter(prefix="/studies/{kind}/{name}")

SHOWN = 6
"""Number of earlier results that are listed."""

EXAMPLE = {"models": "vit_s16,resnet50", "time": TIMES[1]}
"""What the command that a page shows is given."""


@router.get("")
def study(request: Request, kind: str, name: str, of: str = "") -> HTMLResponse:
    """Return the page of a study, with the newest result or that of the command `of`."""
    studio = studio_of(request)
    about = _about(studio, checked_kind(kind), name)
    past = studio.background.of_run(name, kind)
    current = next((one for one in past if one.id == of), past[0] if past else None)
    runs = sorted(path.parent.name for path in studio.workspace.runs.glob("*/report.json"))
    values = {
        "kind": kind,
        "name": name,
        "about_data": kind in OF_DATA,
        "current": current,
        "has_page": current is not None and page_of(kind, current.folder) is not None,
        "past": past[:SHOWN],
        "others": [one for one in runs if one != name],
        "times": TIMES,
        "commands": [_shown(kind, about)],
    }
    return page(request, "study.html", values)


@router.post("")
async def start_study(request: Request, kind: str, name: str) -> Response:
    """Start a study beside the queue and go to its page."""
    studio = studio_of(request)
    about = await run_in_threadpool(_about, studio, checked_kind(kind), name)
    async with request.form(max_files=0, max_fields=10) as form:
        given = {key: str(value).strip() for key, value in form.items()}
    if given.get("other"):
        studio.run(given["other"])
    folder = studio.background.new_folder()
    words = words_of(kind, about, given, folder / "out")
    started = await run_in_threadpool(
        studio.background.start, folder, Wish(words, given.get("models") or name, name, kind)
    )
    return RedirectResponse(f"{name}?of={started.id}", 303)


@router.get("/page/{id}")
def study_page(request: Request, kind: str, name: str, id: str) -> Response:
    """Return the finished page that a study wrote, sealed."""
    found: BackgroundCommand = studio_of(request).background.command(id)
    file = page_of(checked_kind(kind), found.folder)
    if file is None or (found.run, found.kind) != (name, kind):
        raise RunError("This study wrote no page. Start it again.")
    return FileResponse(file, media_type="text/html", headers=SEALED)


def _about(studio: Studio, kind: str, name: str) -> str:
    """Return what the command is about: the place of a data set, or the folder of a run."""
    if kind in OF_DATA:
        datasets = studio.images.datasets
        return str(datasets.place(datasets.get(name)))
    return f"runs/{studio.run(name).name}"


def _shown(kind: str, about: str) -> Command:
    words = words_of(kind, about, EXAMPLE, Path("study") / "out")
    python = f"import subprocess\n\nsubprocess.run({['vitrail', *words]!r}, check=True)"
    return Command(command(*words), python)
