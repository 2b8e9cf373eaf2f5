"""Take a model away: its file, exports with their proof, its page, the run as a zip, and a repository of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from vitrail.core.errors import RunError, SettingError, UnknownNameError
from vitrail.core.text import command
from vitrail.export.formats import SUFFIXES, USES
from vitrail.studio.app_parts import page, studio_of
from vitrail.studio.background import Wish
from vitrail.studio.commands import Command
from vitrail.studio.routes.predict import examples_of

router = APIRouter(prefix="/runs/{name}")


@router.get("/export")
def export(request: Request, name: str) -> HTMLResponse:
    """Return the page with everything that can be taken away."""
    studio = studio_of(request)
    run = studio.run(name)
    done = studio.background.of_run(name, "export")
    latest = {one.title: one for one in reversed(done)}
    formats = [
        {"name": key, "use": USES[key], "command": latest.get(key), "shown": _export_shown(name, key)}
        for key in SUFFIXES
    ]
    values = {
        "name": name,
        "usable": run.model.is_file(),
        "finished": run.finished,
        "megabytes": run.model.stat().st_size / 1e6 if run.model.is_file() else 0.0,
        "has_page": run.page.is_file(),
        "examples": examples_of(run),
        "formats": formats,
        "uploads": studio.background.of_run(name, "push")[:3],
        "load": _load_shown(name),
        "push": _push_shown(name),
    }
    return page(request, "export.html", values)


@router.post("/export/{format}")
def start_export(request: Request, name: str, format: str) -> Response:
    """Start an export; its page shows how far it is, and its proof."""
    if format not in SUFFIXES:
        raise UnknownNameError("format", format, SUFFIXES, f"There are: {', '.join(SUFFIXES)}.")
    studio = studio_of(request)
    run = studio.run(name)
    folder = studio.background.new_folder()
    out = folder / "out" / f"{name}{SUFFIXES[format]}"
    words = ["export", str(run.folder), "--format", format, "--out", str(out)]
    started = studio.background.start(folder, Wish(words, format, name, "export"))
    return RedirectResponse(f"../../../background/{started.id}", 303)


@router.get("/model.safetensors")
def model_file(request: Request, name: str) -> Response:
    """Return the model file as a download."""
    run = studio_of(request).run(name)
    return _download(run.model, f"{name} has no model yet. Let its training finish the first epoch.", name)


@router.get("/page.html")
def page_file(request: Request, name: str) -> Response:
    """Return the report as a download."""
    run = studio_of(request).run(name)
    return _download(run.page, f"{name} has no page yet. It is written at the end of the training.", name)


@router.post("/push")
def push(
    request: Request,
    name: str,
    repository: Annotated[str, Form()],
    token: Annotated[str, Form()] = "",
    private: Annotated[str, Form()] = "",
) -> Response:
    """Upload a run to the model hub; the token is given to the upload alone and written nowhere."""
    wanted = repository.strip()
    if wanted.count("/") != 1 or wanted.startswith("-"):
        raise SettingError(f"{wanted!r} is not a repository name. Use owner/name, such as me/photos.")
    studio = studio_of(request)
    run = studio.run(name)
    words = ["push", str(run.folder), wanted, *(["--private"] if private else [])]
    environment = {"HF_TOKEN": token.strip()} if token.strip() else {}
    folder = studio.background.new_folder()
    started = studio.background.start(folder, Wish(words, wanted, name, "push"), environment)
    return RedirectResponse(f"../../background/{started.id}", 303)


def _download(file: Path, missing: str, name: str) -> Response:
    """Return a file of a run under the name of the run; RunError if it is missing."""
    if not file.is_file():
        raise RunError(missing)
    return FileResponse(file, filename=f"{name}{file.suffix}", media_type="application/octet-stream")


def _export_shown(name: str, format: str) -> Command:
    line = command("export", f"runs/{name}", "--format", format)
    run = repr(f"runs/{name}")
    return Command(line, f"from vitrail.export.export import export\n\nexport({run}, {format!r})")


def _load_shown(name: str) -> Command:
    line = command("predict", f"{name}.safetensors", "photo.jpg")
    python = (
        f"import vitrail\n\nmodel = vitrail.load({f'{name}.safetensors'!r})\nprint(model('photo.jpg')[0])"
    )
    return Command(line, python)


def _push_shown(name: str) -> Command:
    run = repr(f"runs/{name}")
    python = (
        "from vitrail.runs.hub import push\nfrom vitrail.runs.run import open_run\n\n"
        f"push(open_run({run}), 'me/{name}', private=True)"
    )
    return Command(command("push", f"runs/{name}", f"me/{name}", "--private"), python)
