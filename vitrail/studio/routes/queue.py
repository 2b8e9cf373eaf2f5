"""The queue: what runs, what waits, what is over."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from vitrail.studio.app_parts import page, studio_of

router = APIRouter()


@router.get("/queue")
def queue(request: Request) -> HTMLResponse:
    """Return the page of the queue."""
    studio = studio_of(request)
    return page(request, "queue.html", {"jobs": studio.queue.jobs(), "stopping": studio.queue.stopping})


@router.post("/queue/{number}/stop")
def stop(request: Request, number: int) -> HTMLResponse:
    """Stop a job at once: one that runs keeps its best weights."""
    studio = studio_of(request)
    studio.queue.cancel(number)
    return page(request, "queue.html", {"jobs": studio.queue.jobs(), "stopping": studio.queue.stopping})
