"""What the studio reached outside of this machine."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from vitrail.studio.app_parts import page, studio_of
from vitrail.studio.connections import KEPT

router = APIRouter()


@router.get("/connections")
def connections(request: Request) -> HTMLResponse:
    """Return the list of connections, the newest first."""
    found = studio_of(request).connections.all()
    return page(request, "connections.html", {"found": found[:KEPT], "more": max(0, len(found) - KEPT)})
