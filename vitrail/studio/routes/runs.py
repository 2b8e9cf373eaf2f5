"""The runs: all of them, and the page of one while it trains and afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from vitrail.core.errors import RunError
from vitrail.studio.app_parts import Studio, page, studio_of
from vitrail.studio.curves import curves
from vitrail.studio.dataset_table import Dataset
from vitrail.studio.events import events_from
from vitrail.studio.jobs import Job
from vitrail.studio.projects import project
from vitrail.studio.run_list import PAGE, Condition, RunList, Summary
from vitrail.studio.run_news import follow, news
from vitrail.studio.run_view import RunView, run_folder, view
from vitrail.studio.trainings import Trainings

router = APIRouter()


@dataclass(frozen=True)
class Line:
    """A run in a list; `seen` is the number of decisions about the images that it saw, None where it is not asked."""

    run: Summary
    condition: Condition
    job: Job | None
    seen: int | None = None


def lines(studio: Studio, runs: list[Summary]) -> list[Line]:
    """Return runs with how far they are."""
    jobs = studio.queue.of_runs()
    return [Line(run, run.condition(jobs.get(run.name)), jobs.get(run.name)) for run in runs]


def lines_of(studio: Studio, dataset: Dataset) -> list[Line]:
    """Return the runs on a data set, the newest first, each with the number of decisions that it saw."""
    found = project(studio.images.datasets, dataset.name, RunList(studio.workspace, studio.database).all())
    seen = studio.images.datasets.revision_at
    return [replace(one, seen=seen(dataset, one.run.looked)) for one in lines(studio, list(found.runs))]


@router.get("/runs")
def runs(request: Request, before: str = "", dataset: str = "") -> HTMLResponse:
    """Return a page of the list of runs, from behind a place `before` (time and name); or those on one data set."""
    studio, place = studio_of(request), _place(before)
    chosen = studio.images.datasets.get(dataset) if dataset else None
    if chosen is None:
        found = lines(studio, RunList(studio.workspace, studio.database).page(place))
    else:
        own = lines_of(studio, chosen)
        found = [one for one in own if place is None or (one.run.changed, one.run.name) < place][:PAGE]
    last = found[-1].run if len(found) == PAGE else None
    values = {
        "lines": found,
        "waiting": [] if before else _waiting(studio, chosen),
        "older": f"{last.changed!r}:{last.name}" if last else "",
        "dataset": chosen,
        "revision": studio.images.datasets.revision(chosen) if chosen else 0,
    }
    return page(request, "runs.html", values)


def _waiting(studio: Studio, dataset: Dataset | None) -> list[Job]:
    """Return the jobs whose run has not begun."""
    jobs = [job for job in studio.queue.active() if not (studio.workspace.runs / job.run).exists()]
    if dataset is None:
        return jobs
    key = studio.images.datasets.key
    return [job for job in jobs if key(job.source) == key(dataset.source)]


def _place(before: str) -> tuple[float, str] | None:
    changed, colon, name = before.partition(":")
    if not colon:
        return None
    try:
        return float(changed), name
    except ValueError:
        return None


@router.get("/runs/{name}")
def run(request: Request, name: str) -> HTMLResponse:
    """Return the page of a run: words first, curves second, images, settings."""
    return page(request, "run.html", _values(request, name))


@router.get("/runs/{name}/words")
def words(request: Request, name: str) -> HTMLResponse:
    """Return the part of a run's page that says how it is."""
    return page(request, "partials/run_words.html", _values(request, name))


def _values(request: Request, name: str) -> dict[str, Any]:
    studio = studio_of(request)
    found = view(studio.workspace, studio.queue, name)
    return {"view": found, "project": _project(studio, found), "following": _following(studio, found)}


def _project(studio: Studio, found: RunView) -> str:
    """Return the name of the data set of a run; empty if the studio does not know it."""
    source = found.summary.source or (found.job.source if found.job else "")
    known = studio.images.datasets.listed(source)
    return known.name if known else ""


def _following(studio: Studio, found: RunView) -> str:
    """Return the run of the job that comes after this one; empty if there is none."""
    if found.job is None:
        return ""
    number = found.job.id
    return next((job.run for job in studio.queue.jobs() if job.after == number and job.run != found.name), "")


@router.get("/runs/{name}/curves")
def whole_curves(request: Request, name: str) -> JSONResponse:
    """Return the curves of a run, and the offset from which events continue them."""
    told = events_from(run_folder(studio_of(request).workspace, name) / "history.jsonl", 0)
    values = curves([one.event for one in told])
    return JSONResponse({**values, "offset": told[-1].offset if told else 0}, headers=_FRESH)


@router.get("/runs/{name}/news")
def latest(request: Request, name: str, offset: int = 0) -> JSONResponse:
    """Return what is new behind an offset: for pages that may not keep a connection open."""
    found = news(studio_of(request), name, offset)
    return JSONResponse({**(found.values or {}), "offset": found.offset}, headers=_FRESH)


@router.get("/runs/{name}/events", response_class=EventSourceResponse)
async def events(request: Request, name: str, offset: int = 0) -> AsyncIterator[ServerSentEvent]:
    """Send what is new of a run while it trains; a browser that comes back continues behind its last event."""
    given = request.headers.get("last-event-id", "")
    begin = int(given) if given.isdecimal() else offset
    async for found in follow(studio_of(request), name, begin):
        if found.values is None:
            yield ServerSentEvent(comment="still here")
        else:
            yield ServerSentEvent(data=found.values, id=str(found.offset))


_FRESH = {"Cache-Control": "no-store"}


@router.get("/runs/{name}/live.png")
def live(request: Request, name: str) -> Response:
    """Return the validation images with the predictions of the last epoch."""
    path = run_folder(studio_of(request).workspace, name) / "live.png"
    if not path.is_file():
        return Response(status_code=404)
    return FileResponse(path, headers=_FRESH, media_type="image/png")


@router.post("/runs/{name}/stop")
def stop(request: Request, name: str) -> RedirectResponse:
    """Stop the training of a run; it keeps its best weights and can go on."""
    studio = studio_of(request)
    job = studio.queue.of_run(name)
    if job is None or not job.active:
        raise RunError(
            f"{name} is not trained by this studio. If it was started from a terminal, press Ctrl-C there."
        )
    studio.queue.cancel(job.id)
    return _back(name)


@router.post("/runs/{name}/continue")
def go_on(request: Request, name: str, more: int = 0) -> RedirectResponse:
    """Continue a run that was stopped, or train it for more epochs."""
    studio = studio_of(request)
    Trainings(studio.images.datasets, studio.queue).go_on(name, more)
    return _back(name)


def _back(name: str) -> RedirectResponse:
    """Lead back to the page of a run, by a relative address that works behind a prefix."""
    from urllib.parse import quote

    return RedirectResponse(f"../{quote(name)}", 303)
