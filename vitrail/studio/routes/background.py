"""The pages of commands beside the queue: how far they are, what they wrote, and the files to take."""

from __future__ import annotations

import zipfile
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from vitrail.core.errors import RunError
from vitrail.core.files import replace
from vitrail.studio.app_parts import page, studio_of
from vitrail.studio.background import BackgroundCommand

router = APIRouter(prefix="/background/{id}")

ROWS = 8
"""Rows of a table that are shown before it is downloaded."""


@router.get("")
def command_page(request: Request, id: str) -> HTMLResponse:
    """Return the page of a command; the part that changes asks for itself again while it runs."""
    command = studio_of(request).background.command(id)
    part = request.headers.get("hx-request") == "true"
    values = {"command": command, "rows": _first_rows(command)}
    return page(request, "partials/background.html" if part else "background.html", values)


@router.post("/stop")
def stop(request: Request, id: str) -> Response:
    """End a command."""
    studio_of(request).background.command(id).stop()
    return RedirectResponse(f"../{id}", 303)


@router.get("/files/{file:path}")
def written_file(request: Request, id: str, file: str) -> Response:
    """Return a file that a command wrote, as a download."""
    command = studio_of(request).background.command(id)
    found = next((one for one in command.files() if _below(command, one) == file), None)
    if found is None:
        raise RunError(f"There is no file {file!r}. It may have been removed; start the command again.")
    return FileResponse(found, filename=found.name, media_type="application/octet-stream")


@router.get("/all.zip")
def written_files(request: Request, id: str) -> Response:
    """Return all files that a command wrote as one zip."""
    command = studio_of(request).background.command(id)
    files = command.files()
    if command.state != "done" or not files:
        raise RunError("Nothing was written yet. Wait until the command is done.")
    target = command.folder / "all.zip"

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for one in files:
                archive.write(one, _below(command, one))

    replace(target, write)
    first = _below(command, files[0]).split("/")[0].rpartition(".")
    return FileResponse(target, filename=f"{first[0] or first[2]}.zip", media_type="application/zip")


def _below(command: BackgroundCommand, file: Path) -> str:
    return file.relative_to(command.folder / "out").as_posix()


def _first_rows(command: BackgroundCommand) -> list[list[str]]:
    """Return the head and the first rows of a table that a command wrote; none for other files."""
    import csv
    from itertools import islice

    tables = [one for one in command.files() if one.suffix == ".csv"]
    if command.state == "running" or not tables:
        return []
    with tables[0].open(encoding="utf-8", newline="") as handle:
        rows = list(islice(csv.reader(handle), ROWS + 1))
    prefix = f"{command.folder / 'in'}/"
    return [[cell.removeprefix(prefix) for cell in row] for row in rows]
