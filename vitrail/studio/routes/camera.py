"""The live camera of a model: answers and attention, frame by frame."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from vitrail.core.errors import DataError, RunError
from vitrail.core.text import command
from vitrail.studio.app_parts import Studio, page, studio_of
from vitrail.studio.camera_frames import MOST_BYTES, answer_of
from vitrail.studio.commands import Command
from vitrail.studio.run_files import RunFiles

router = APIRouter(prefix="/runs/{name}/camera")


@router.get("")
def camera(request: Request, name: str) -> HTMLResponse:
    """Return the page of the live camera."""
    studio = studio_of(request)
    run = studio.run(name)
    colour, names = _described(run)
    dataset, classes = _collects(studio, run, names)
    values = {
        "name": name,
        "usable": run.model.is_file(),
        "colour": colour,
        "dataset": dataset,
        "classes": classes,
        "commands": [_shown(name)],
    }
    return page(request, "camera.html", values)


@router.post("/frame")
async def frame(request: Request, name: str) -> JSONResponse:
    """Return the answer for a frame, which is the body of the request; nothing of it is kept."""
    size = request.headers.get("content-length", "")
    if not size.isdecimal() or int(size) > MOST_BYTES:
        raise DataError(f"A frame has at most {MOST_BYTES >> 20} MB.")
    return JSONResponse(await run_in_threadpool(_answer, studio_of(request), name, await request.body()))


def _answer(studio: Studio, name: str, data: bytes) -> dict[str, object]:
    with studio.predictors.live(studio.run(name).folder) as live:
        return answer_of(live, data)


def _described(run: RunFiles) -> tuple[bool, tuple[str, ...]]:
    """Return whether a model reads colour pictures, and its names; of a damaged file the first frame says more."""
    try:
        return run.bands() == (3, None), run.names()
    except RunError:
        return True, ()


def _collects(studio: Studio, run: RunFiles, names: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return the data set of a run and its classes, if a new image is put into it as a file in a class's folder."""
    dataset = studio.images.datasets.listed(run.source()) if names else None
    if dataset is None or not dataset.uploaded:
        return "", ()
    place: Path = studio.images.datasets.place(dataset)
    return (dataset.name, names) if all((place / one).is_dir() for one in names) else ("", ())


def _shown(name: str) -> Command:
    python = (
        "import vitrail\nfrom vitrail.explainers.live_attention import LiveAttention\n\n"
        f"look = LiveAttention(vitrail.load({f'runs/{name}'!r}))\nprediction, weights, place = look(frame)"
    )
    return Command(command("predict", f"runs/{name}", "frame.jpg"), python)
