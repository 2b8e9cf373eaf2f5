"""The first page, and the style that all pages share."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from vitrail.studio.app_parts import page, studio_of
from vitrail.studio.projects import projects, with_images
from vitrail.studio.routes.runs import lines
from vitrail.studio.run_list import RunList

router = APIRouter()

NEWEST, PROJECTS = 4, 12
"""Runs and projects on the first page."""


@router.get("/")
def home(request: Request, into: str = "") -> HTMLResponse:
    """Return the first page: a place to drop images, the projects, and what runs; `into` goes on with an upload."""
    studio = studio_of(request)
    runs = RunList(studio.workspace, studio.database).all()
    datasets = studio.images.datasets
    found = projects(datasets, runs)
    values = {
        "projects": [with_images(datasets, one) for one in found[:PROJECTS]],
        "active": studio.queue.active(),
        "into": into if any(one.name == into for one in found) else "",
        "newest": lines(studio, runs[:NEWEST]),
    }
    return page(request, "home.html", values)


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
