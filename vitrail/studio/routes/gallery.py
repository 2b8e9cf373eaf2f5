"""The gallery of networks, one network explained, and models of one's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Form, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from vitrail.core.errors import DataError, UnknownNameError
from vitrail.core.text import command
from vitrail.runs.run_archive import MOST_BYTES
from vitrail.studio import gallery
from vitrail.studio.app_parts import Studio, page, studio_of
from vitrail.studio.background import Wish
from vitrail.studio.commands import Command
from vitrail.studio.own_models import OwnModel, OwnModels
from vitrail.studio.workspace import safe_name

router = APIRouter(prefix="/gallery")

SPEED = "speed"
"""The kind of the commands that measure a network."""


@router.get("")
def networks(
    request: Request, words: str = "", kind: str = "", size: str = "", after: int = 0, deleted: str = ""
) -> HTMLResponse:
    """Return the gallery: saved models, then networks that fit the search."""
    studio = studio_of(request)
    wanted = gallery.Wanted(words, kind, size)
    found = gallery.found(wanted)
    later = after + gallery.PAGE
    values = {
        "wanted": wanted,
        "kinds": gallery.KINDS,
        "sizes": tuple(gallery.SIZES),
        "own": [] if after else _own(studio).all(),
        "networks": found[after:later],
        "count": len(found),
        "more": urlencode({**wanted._asdict(), "after": later}) if later < len(found) else "",
        "speeds": speeds(studio),
        "deleted": deleted,
        "datasets": [one.name for one in studio.images.datasets.all()],
        "commands": [
            Command(command("models", "*"), "from vitrail.models.factory import list_models\n\nlist_models()")
        ],
    }
    return page(request, "gallery.html", values)


@router.get("/of/{name}")
def network(request: Request, name: str) -> HTMLResponse:
    """Return the page of a network: what it is, its steps, its speed here, its published weights."""
    studio = studio_of(request)
    one = _entry(name)
    values = {
        "one": one,
        "steps": gallery.steps(name),
        "speed": speeds(studio).get(name),
        "measuring": [c for c in studio.background.of_run("", SPEED) if c.title == name][:1],
        "weights": [f"{name}.{tag}" for tag in one.tags],
        "datasets": [each.name for each in studio.images.datasets.all()],
        "commands": [_shown(name)],
    }
    return page(request, "network.html", values)


@router.get("/of/{name}/weights")
def weights(request: Request, name: str) -> HTMLResponse:
    """Return the published weights of a network with their licence, and which of them are here."""
    from vitrail.weights.checkpoints import find  # slow to import: the page asks for this part
    from vitrail.weights.download import cached

    rows = [(one, find(one)) for one in (f"{name}.{tag}" for tag in _entry(name).tags)]
    found = [(one, row.licence or "", cached(row.repo, row.files) is not None) for one, row in rows if row]
    return page(request, "partials/published_weights.html", {"weights": found})


@router.post("/of/{name}/measure")
def measure(request: Request, name: str) -> Response:
    """Measure a network on this machine, beside the queue."""
    studio, one = studio_of(request), _entry(name)
    words = ["bench", one.name, "--json", "--rounds", "3", "--batch", "8", "--no-compile"]
    started = studio.background.start(studio.background.new_folder(), Wish(words, one.name, "", SPEED))
    return RedirectResponse(f"../../../background/{started.id}", 303)


@router.post("/save")
def save(
    request: Request,
    name: Annotated[str, Form()],
    network: Annotated[str, Form()] = "",
    run: Annotated[str, Form()] = "",
) -> Response:
    """Save a network, or that of a run with its weights, under a name of one's own."""
    studio = studio_of(request)
    if run:
        saved = _own(studio).save_run(studio.run(run), name)
    else:
        saved = _own(studio).save_network(_entry(network).name, name)
    return RedirectResponse(f"mine/{quote(saved.name, safe='')}", 303)


@router.get("/mine/{name}")
def mine(request: Request, name: str) -> HTMLResponse:
    """Return the page of a saved model."""
    studio = studio_of(request)
    one = _own(studio).get(name)
    values = {
        "one": one,
        "entry": gallery.entry(one.network),
        "query": urlencode(one.options()),
        "datasets": [each.name for each in studio.images.datasets.all()],
        "commands": [_started(one)],
    }
    return page(request, "own_model.html", values)


@router.post("/mine/{name}/rename")
def rename(request: Request, name: str, wanted: Annotated[str, Form()]) -> Response:
    """Give a saved model another name."""
    renamed = _own(studio_of(request)).rename(name, wanted)
    return RedirectResponse(f"../{quote(renamed.name, safe='')}", 303)


@router.post("/mine/{name}/delete")
def delete(request: Request, name: str) -> Response:
    """Move a saved model into the bin."""
    key = _own(studio_of(request)).delete(name)
    return RedirectResponse(f"../../../gallery?deleted={key}", 303)


@router.post("/restore")
def restore(request: Request, key: Annotated[str, Form()]) -> Response:
    """Take a deleted model back."""
    one = _own(studio_of(request)).restore(key)
    return RedirectResponse(f"mine/{quote(one.name, safe='')}", 303)


@router.get("/mine/{name}/model.zip")
def packed(request: Request, name: str) -> Response:
    """Return a saved model as one file."""
    studio = studio_of(request)
    one = _own(studio).get(name)
    file = _own(studio).pack(name, studio.workspace.own / "packed" / f"model-{one.name}.zip")
    return FileResponse(file, filename=f"{one.name}.zip", media_type="application/zip")


@router.post("/import")
async def open_packed(request: Request) -> Response:
    """Open a saved model that was packed as one file."""
    studio = studio_of(request)
    size = request.headers.get("content-length", "0")
    if size.isdecimal() and int(size) > MOST_BYTES:
        raise DataError(f"This is more than {MOST_BYTES >> 30} GB. Copy the folder into models/ by hand.")
    async with request.form(max_files=1, max_fields=2) as form:
        file = form.get("model")
        if not isinstance(file, UploadFile) or not file.filename:
            raise DataError("Choose a model that was saved as one file.")
        one = await run_in_threadpool(_unpacked, studio, file)
    return RedirectResponse(f"mine/{quote(one.name, safe='')}", 303)


def speeds(studio: Studio) -> dict[str, float]:
    """Return the images a second of each network that was measured here: its fastest way, in batches."""
    found: dict[str, float] = {}
    for one in studio.background.of_run("", SPEED):
        if one.state != "done" or one.title in found:
            continue
        with suppress(ValueError):  # a command that was killed while it printed
            rows: Sequence[dict[str, Any]] = json.loads(one.answer).get("rows", ())
            if rows:
                found[one.title] = max(row["images"] for row in rows)
    return found


def _unpacked(studio: Studio, upload: UploadFile) -> OwnModel:
    from shutil import copyfileobj

    from vitrail.core.files import replace

    sent = safe_name(upload.filename or "model.zip")
    file = studio.workspace.own / "packed" / f"sent-{sent}"

    def write(temporary: Any) -> None:
        with temporary.open("wb") as target:
            copyfileobj(upload.file, target)

    replace(file, write)
    try:
        return _own(studio).unpack(file, sent.rpartition(".")[0] or sent)
    finally:
        file.unlink(missing_ok=True)


def _own(studio: Studio) -> OwnModels:
    return OwnModels(studio.workspace)


def _entry(name: str) -> gallery.Entry:
    one = gallery.entry(name)
    if one is None:
        raise UnknownNameError(
            "network", name, [each.name for each in gallery.entries()], "Search for it in the gallery."
        )
    return one


def _listed() -> Command:
    python = "from vitrail.models.factory import list_models, list_timm\n\nprint(list_models(), list_timm())"
    return Command(command("models", "--timm"), python)


def _shown(name: str) -> Command:
    return Command(
        command("train", "photos/", "--model", name),
        f"import vitrail\n\nnetwork = vitrail.create_model({name!r})",
    )


def _started(one: OwnModel) -> Command:
    options = one.options()
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    stated = ", ".join(f"{key}={value!r}" for key, value in options.items())
    python = f"import vitrail\n\nrun = vitrail.train('photos', vitrail.TrainOptions({stated}))"
    return Command(command("train", "photos/", *words), python)
