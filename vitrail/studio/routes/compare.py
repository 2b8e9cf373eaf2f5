"""Comparisons: which network is better, as `vitrail compare` found it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from vitrail.core.errors import RunError, SettingError
from vitrail.core.text import command
from vitrail.studio.app_parts import Studio, page, studio_of
from vitrail.studio.background import Wish
from vitrail.studio.commands import Command
from vitrail.studio.routes.result import SEALED
from vitrail.studio.workspace import inside, safe_name

router = APIRouter(prefix="/compare")

PAGE, REPORT = "compare.html", "compare.json"


@dataclass(frozen=True)
class Comparison:
    """A finished comparison: its name, its verdict, and when it was written."""

    name: str
    verdict: str
    written: float


@router.get("")
def comparisons(request: Request) -> HTMLResponse:
    """Return the list of comparisons in the workspace."""
    studio = studio_of(request)
    runs = sorted(path.parent.name for path in studio.workspace.runs.glob("*/report.json"))
    values = {
        "comparisons": comparisons_of(studio),
        "runs": runs,
        "started": [one for one in studio.background.commands() if one.kind == "compare"][:3],
        "commands": [_shown()],
    }
    return page(request, "compare.html", values)


@router.post("")
def start_comparison(request: Request, run: Annotated[list[str], Form()]) -> Response:
    """Compare trained models on the test images that they share."""
    studio = studio_of(request)
    names = [studio.run(name).name for name in dict.fromkeys(run)]
    if len(names) < 2:
        raise SettingError("One model cannot be compared. Choose two or more.")
    words = [
        "compare",
        "--out",
        f"runs/compare-{'-'.join(names)}"[:120],
        "--runs",
        *(f"runs/{one}" for one in names),
    ]
    wish = Wish(words, ", ".join(names), names[0], "compare")
    started = studio.background.start(studio.background.new_folder(), wish)
    return RedirectResponse(f"background/{started.id}", 303)


@router.get("/{name}")
def comparison(request: Request, name: str) -> HTMLResponse:
    """Return the page of a comparison."""
    _folder(studio_of(request), name)
    return page(request, "comparison.html", {"name": name})


@router.get("/{name}/page.html")
def comparison_page(request: Request, name: str) -> Response:
    """Return the finished page of a comparison, sealed."""
    folder = _folder(studio_of(request), name)
    return FileResponse(folder / PAGE, media_type="text/html", headers=SEALED)


def comparisons_of(studio: Studio) -> list[Comparison]:
    """Return the comparisons of a workspace, the newest first."""
    found = [_summary(path.parent) for path in studio.workspace.runs.glob(f"*/{PAGE}")]
    return sorted(found, key=lambda one: -one.written)


def _summary(folder: Path) -> Comparison:
    try:
        told = json.loads((folder / REPORT).read_text(encoding="utf-8")).get("verdict", "")
    except (OSError, ValueError, AttributeError):
        told = ""
    verdict = told if isinstance(told, str) else " ".join(map(str, told[:1]))
    return Comparison(folder.name, verdict, (folder / PAGE).stat().st_mtime)


def _folder(studio: Studio, name: str) -> Path:
    folder = studio.workspace.runs / safe_name(name)
    if not (folder / PAGE).is_file() or not inside(folder, studio.workspace.runs):
        raise RunError(f"There is no comparison called {name!r} in {studio.workspace.runs}.")
    return folder


def _shown() -> Command:
    python = (
        "from vitrail.studies.compare.comparison import compare_runs\n"
        "from vitrail.studies.compare_options import RunsAsked\n\n"
        "compare_runs(RunsAsked(['runs/a', 'runs/b']), print)"
    )
    return Command(command("compare", "--runs", "runs/a", "runs/b"), python)
