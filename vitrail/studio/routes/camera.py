"""The camera: what a model answers to a living picture, and where it looks."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from vitrail.core.errors import DataError
from vitrail.core.text import command
from vitrail.studio.app_parts import Studio, page, studio_of
from vitrail.studio.commands import Command
from vitrail.studio.run_files import RunFiles

router = APIRouter(prefix="/runs/{name}/camera")

MOST_BYTES = 4 << 20
"""Largest size of one picture of the camera."""

SIDE = 224
"""Side of the pictures that are sent where a model file does not state its own."""


@router.get("")
def camera(request: Request, name: str) -> HTMLResponse:
    """Return the page of the camera."""
    studio = studio_of(request)
    run = studio.run(name)
    usable = run.model.is_file()
    values = {
        "name": name,
        "usable": usable,
        "colour": run.bands() == (3, False),
        "side": _side(run) if usable else SIDE,
        "labels": run.names() if usable else (),
        "dataset": _dataset(studio, run) if usable else "",
        "commands": [_shown(name)],
    }
    return page(request, "camera.html", values)


@router.post("/frame")
async def answer(request: Request, name: str) -> JSONResponse:
    """Return the answer for one picture: bars, novelty, and where the network looked."""
    studio = studio_of(request)
    run = studio.run(name)
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MOST_BYTES:
            raise DataError(f"A picture of the camera may have {MOST_BYTES >> 20} MB. Send a smaller one.")
    found = await run_in_threadpool(_answer, studio, run, bytes(data))
    return JSONResponse(found, headers={"Cache-Control": "no-store"})


def _answer(studio: Studio, run: RunFiles, data: bytes) -> dict[str, Any]:
    from vitrail.studio.live_frames import frame

    with studio.predictors.model(run.folder) as predictor:
        return frame(predictor, data)


def _side(run: RunFiles) -> int:
    """Return the longest side of what the model reads."""
    size = run.header().get("preprocess", {}).get("size", SIDE)
    sides = size if isinstance(size, list) else [size]
    return int(max(sides, default=SIDE))


def _dataset(studio: Studio, run: RunFiles) -> str:
    """Return the data set of the run, if pictures can be added to it."""
    name = run.source().rpartition("/")[2]
    try:
        return name if studio.images.datasets.get(name).uploaded else ""
    except DataError:
        return ""


def _shown(name: str) -> Command:
    line = command("predict", f"runs/{name}", "photo.jpg")
    return Command(line, f"import vitrail\n\nvitrail.load({f'runs/{name}'!r}).predict('photo.jpg')")
