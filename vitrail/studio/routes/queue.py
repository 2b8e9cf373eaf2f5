"""The queue: what runs, what waits, what is over."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from vitrail.studio.app_parts import page, studio_of

router = APIRouter()

SHOWN = 40
"""Jobs that are over and still on the page."""


@router.get("/queue")
def queue(request: Request) -> HTMLResponse:
    """Return the page of the queue."""
    return page(request, "queue.html", _values(request))


@router.get("/queue/list")
def queue_list(request: Request) -> HTMLResponse:
    """Return the part of the page that changes."""
    return page(request, "partials/queue_list.html", _values(request))


def _values(request: Request) -> dict[str, object]:
    studio = studio_of(request)
    over = [job for job in studio.queue.jobs(SHOWN) if not job.active]
    return {"active": studio.queue.active(), "over": over, "stopping": studio.queue.stopping}


@router.post("/queue/{number}/stop")
def stop(request: Request, number: int) -> RedirectResponse:
    """Stop a job at once: one that runs keeps its best weights."""
    studio_of(request).queue.cancel(number)
    return RedirectResponse("../../queue", 303)
