"""The pages of data sets: the list, a new one, files that arrive, and the bin."""

from __future__ import annotations

import time
from pathlib import PurePosixPath
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from vitrail.core.errors import DataError
from vitrail.data.archives import is_archive
from vitrail.studio.app_parts import Root, Studio, page, studio_of
from vitrail.studio.dataset_table import Dataset
from vitrail.studio.recycle_bin import DAYS
from vitrail.studio.upload_batch import receive_batch
from vitrail.studio.uploads import LATEST, Incoming

router = APIRouter()

STRIP = 6
"""Images on the card of a data set."""

MOST_IN_FORM = 20_000
"""Files that a form without script may send at once."""

CHUNK = 1 << 20


class Summary(NamedTuple):
    """What the card of a data set shows."""

    images: int
    out: int
    groups: int
    named: bool
    problem: str
    strip: tuple[tuple[str, str], ...]  # ids and stamps


@router.get("/data")
def data_list(request: Request, deleted: str = "") -> HTMLResponse:
    """Return the list of data sets, and what was deleted."""
    parts = studio_of(request).images
    values = {
        "datasets": parts.datasets.all(),
        "bin": parts.bin.content(),
        "deleted": deleted,
        "days": DAYS,
    }
    return page(request, "data.html", values)


@router.get("/data/new")
def new(request: Request, into: str = "") -> HTMLResponse:
    """Return the page where images are dropped, or a place on this machine is named; `into` goes on with a set."""
    known = studio_of(request).images.datasets.get(into).name if into else ""
    return page(request, "new.html", {"into": known})


@router.post("/data/new")
async def add(request: Request) -> Response:
    """Make a data set of the files of a form, or of a place on this machine; an empty one for a script that sends."""
    parts = studio_of(request).images
    async with request.form(max_files=MOST_IN_FORM, max_fields=1000) as form:
        place, name = str(form.get("path") or "").strip(), str(form.get("name") or "").strip()
        files = [one for one in form.getlist("files") if isinstance(one, UploadFile) and one.filename]
        if place:
            dataset = await run_in_threadpool(parts.datasets.add_place, place, name)
        elif files or _of_script(request):
            dataset = await run_in_threadpool(parts.datasets.create, name or _name_of(files))
            await _store_all(studio_of(request), dataset, files, form)
        else:
            raise DataError("Nothing was chosen. Drop a folder of images, or name its path.")
    there = quote(dataset.name, safe="")
    if _of_script(request):
        return JSONResponse({"name": dataset.name, "path": there})
    return RedirectResponse(there, 303)


@router.get("/data/{name}/card")
def card(request: Request, name: str, root: Root = "./") -> HTMLResponse:
    """Return the inside of the card of a data set, for a page from which `root` leads to the first page."""
    studio = studio_of(request)
    dataset = studio.images.datasets.get(name)
    values = {"dataset": dataset, "summary": summary(studio, dataset), "root": root}
    return page(request, "partials/data_card.html", values)


class Announced(BaseModel):
    """Files that are to be sent: path, size in bytes, time of change in milliseconds."""

    files: list[tuple[str, int, int]]


@router.post("/data/{name}/missing")
def missing(request: Request, name: str, announced: Announced) -> JSONResponse:
    """Return the numbers of the files that have not arrived yet, and the sentences about those that are refused."""
    parts = studio_of(request).images
    files = [Incoming(*one) for one in announced.files]
    wanted, refused = parts.uploads.missing(parts.datasets.get(name), files)
    return JSONResponse({"missing": wanted, "refused": refused})


@router.put("/data/{name}/files/{path:path}")
async def receive(
    request: Request, name: str, path: str, modified: Annotated[int, Query(ge=0, le=LATEST)] = 0
) -> JSONResponse:
    """Take in one file; it is there whole, or not at all."""
    parts = studio_of(request).images
    dataset = await run_in_threadpool(parts.datasets.get, name)
    length = request.headers.get("content-length", "")
    if not length.isdigit():
        raise DataError("The size of a file must be told before it is sent. Use a current browser.")
    stored = await parts.uploads.receive(dataset, Incoming(path, int(length), modified), request.stream())
    return JSONResponse({"path": stored})


@router.post("/data/{name}/files")
async def receive_many(request: Request, name: str) -> JSONResponse:
    """Take in many small files; each is there whole, or not at all."""
    parts = studio_of(request).images
    dataset = await run_in_threadpool(parts.datasets.get, name)
    return JSONResponse({"refused": await receive_batch(parts.uploads, dataset, request.stream())})


@router.post("/data/{name}/add")
async def add_files(request: Request, name: str) -> Response:
    """Add the files of a form to a data set, to one class if the form names one."""
    studio = studio_of(request)
    dataset = await run_in_threadpool(studio.images.datasets.get, name)
    async with request.form(max_files=MOST_IN_FORM, max_fields=1000) as form:
        files = [one for one in form.getlist("files") if isinstance(one, UploadFile) and one.filename]
        if not files:
            raise DataError("Nothing was chosen. Choose images first.")
        await _store_all(studio, dataset, files, form)
    return RedirectResponse(f"../{quote(name, safe='')}", 303)


@router.post("/data/{name}/rename")
def rename(request: Request, name: str, wanted: Annotated[str, Form()]) -> Response:
    """Give a data set another name; its files stay where they are."""
    datasets = studio_of(request).images.datasets
    renamed = datasets.rename(datasets.get(name), wanted)
    return RedirectResponse(f"../{quote(renamed.name, safe='')}", 303)


@router.post("/data/{name}/delete")
def delete(request: Request, name: str) -> Response:
    """Move a data set into the bin."""
    parts = studio_of(request).images
    key = parts.bin.delete(parts.datasets.get(name))
    return RedirectResponse(f"../../data?deleted={key}", 303)


@router.post("/bin/{key}/restore")
def restore(request: Request, key: str) -> Response:
    """Put a data set back from the bin."""
    back = studio_of(request).images.bin.restore(key)
    return RedirectResponse(f"../../data/{quote(back.name, safe='')}", 303)


def summary(studio: Studio, dataset: Dataset) -> Summary:
    """Return what the card of a data set shows; images are taken evenly from its classes."""
    from vitrail.data.manifest import KEPT
    from vitrail.studio.thumbnails import stamp_of

    listing = studio.images.checks.listing(dataset)
    kept = [row for row in listing.rows if row.state == KEPT]
    strip = kept[:: max(1, len(kept) // STRIP)][:STRIP]
    return Summary(
        len(kept),
        len(listing.rows) - len(kept),
        sum(1 for name in listing.groups if name),
        listing.named,
        listing.problem,
        tuple((row.id, stamp_of(listing.root, row)) for row in strip),
    )


async def _store_all(studio: Studio, dataset: Dataset, files: list[UploadFile], form: FormData) -> None:
    """Store the files of a form below one class, if it names one, or as their names say."""
    wanted = str(form.get("class") or "").strip()
    refused: list[str] = []
    now = round(time.time() * 1000)
    for file in files:
        path = _below_top(str(file.filename))
        incoming = Incoming(f"{wanted}/{path}" if wanted else path, file.size or 0, now)
        try:
            await studio.images.uploads.receive(dataset, incoming, _chunks(file))
        except DataError as error:
            refused.append(str(error))
    if refused and len(refused) == len(files):
        raise DataError(f"None of the files could be taken. {refused[0]}")


async def _chunks(file: UploadFile) -> Any:
    while chunk := await file.read(CHUNK):
        yield chunk


def _of_script(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _name_of(files: list[UploadFile]) -> str:
    """Return the name of the folder or the archive that was chosen, or "images"."""
    first = str(files[0].filename) if files else ""
    if len(files) == 1 and is_archive(first):
        return PurePosixPath(first).name.partition(".")[0] or "images"
    return first.partition("/")[0] if "/" in first else "images"


def _below_top(name: str) -> str:
    """Return a path without the folder that was chosen: browsers send photos/cat/1.jpg for cat/1.jpg in photos."""
    return name.partition("/")[2] if name.count("/") > 1 else name
