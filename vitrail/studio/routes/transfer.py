"""A run as one zip file: take it along, and open it again here or on another computer."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from vitrail.core.errors import DataError
from vitrail.core.files import replace
from vitrail.runs.run_archive import MOST_BYTES, MOST_SAMPLES, name_in, pack_run, unpack_run
from vitrail.studio.app_parts import Studio, page, studio_of
from vitrail.studio.commands import Command
from vitrail.studio.images import image_of_row
from vitrail.studio.run_files import RunFiles
from vitrail.studio.workspace import safe_name

router = APIRouter()

SAMPLE_SIDE = 1024
"""Longest side of a sample image in pixels."""


@router.get("/runs/{name}/run.zip")
def packed(request: Request, name: str) -> Response:
    """Return a run as a zip: its model, its recipe, its list of images and its reports, and images named `sample`."""
    studio = studio_of(request)
    run = studio.run(name)
    chosen = request.query_params.getlist("sample")[:MOST_SAMPLES]
    samples = [_sample(run, id) for id in chosen]
    file = studio.workspace.own / "packed" / f"{name}.zip"
    pack_run(run.folder, file, samples)
    return FileResponse(file, filename=f"{name}.zip", media_type="application/zip")


def _sample(run: RunFiles, id: str) -> bytes:
    """Return an image of a run as a JPEG of its own, without what the file says of place and camera."""
    image = image_of_row(run, run.row(id)).convert("RGB")
    image.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@router.get("/import")
def import_page(request: Request) -> HTMLResponse:
    """Return the page to open a packed run."""
    python = "from pathlib import Path\n\nfrom vitrail.runs.run_archive import unpack_run\n\n"
    python += "unpack_run(Path('photos.zip'), Path('runs/photos'))"
    return page(request, "import.html", {"commands": [Command("unzip photos.zip -d runs", python)]})


@router.post("/import")
async def import_run(request: Request) -> Response:
    """Open a packed run as a new run."""
    studio = studio_of(request)
    size = request.headers.get("content-length", "0")
    if size.isdecimal() and int(size) > MOST_BYTES:
        raise DataError(f"This is more than {MOST_BYTES >> 30} GB. Copy the run folder by hand.")
    async with request.form(max_files=1, max_fields=2) as form:
        file = form.get("run")
        if not isinstance(file, UploadFile) or not file.filename:
            raise DataError("Choose a run that was packed as a zip.")
        name = await run_in_threadpool(_unpacked, studio, file)
    return RedirectResponse(f"runs/{quote(name, safe='')}/result", 303)


def _unpacked(studio: Studio, upload: UploadFile) -> str:
    """Unpack an uploaded run under its own name, or a free one like it, and return the name."""
    from shutil import copyfileobj

    sent = safe_name(upload.filename or "run.zip")
    file = studio.workspace.own / "packed" / f"sent-{sent}"

    def write(temporary: Path) -> None:
        with temporary.open("wb") as target:
            copyfileobj(upload.file, target)

    replace(file, write)
    try:
        wanted = safe_name(name_in(file) or Path(sent).stem)
        taken = studio.workspace.runs
        names = (wanted, *(f"{wanted}-{number}" for number in range(2, 10_000)))
        name = next(one for one in names if not (taken / one).exists())
        unpack_run(file, taken / name)
    finally:
        file.unlink(missing_ok=True)
    return name
