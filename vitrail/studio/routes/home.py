"""The first page, and the style that all pages share."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from vitrail.studio.app_parts import page, studio_of

router = APIRouter()


@router.get("/")
def home(request: Request) -> HTMLResponse:
    """Return the first page: a place to drop images, the projects, and a sample."""
    studio = studio_of(request)
    return page(request, "home.html", {"jobs": studio.queue.jobs(5)})


@router.get("/style.css")
def style() -> Response:
    """Return the style of the pages that vitrail writes, which the studio shares."""
    source = files("vitrail.pages") / "templates" / "style.css"
    return Response(source.read_text(encoding="utf-8"), media_type="text/css")


@router.get("/report.css")
def report_style() -> Response:
    """Return the style of the parts that reports and the studio share."""
    source = files("vitrail.pages") / "templates" / "report.css"
    return Response(source.read_text(encoding="utf-8"), media_type="text/css")
