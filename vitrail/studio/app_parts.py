"""What every page of the studio uses: its parts, and how a page is returned."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

from fastapi import Query, Request
from fastapi.responses import HTMLResponse

from vitrail.studio.background import BackgroundCommands
from vitrail.studio.connections import Connections
from vitrail.studio.database import Database
from vitrail.studio.image_parts import ImageParts
from vitrail.studio.jobs import Queue
from vitrail.studio.language import translations
from vitrail.studio.looks import Looks
from vitrail.studio.pictures import Pictures
from vitrail.studio.predictors import Predictors
from vitrail.studio.run_files import RunFiles
from vitrail.studio.views import render_page
from vitrail.studio.workspace import Workspace

Root = Annotated[str, Query(pattern=r"^(\./|(\.\./){1,4})$")]
"""The way from a page to the first page, in the address of a part that the page asks for."""


@dataclass(frozen=True)
class Studio:
    """The parts that every page uses."""

    workspace: Workspace
    database: Database
    queue: Queue
    images: ImageParts
    predictors: Predictors = field(default_factory=Predictors)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def background(self) -> BackgroundCommands:
        """The commands beside the queue."""
        return BackgroundCommands(self.workspace)

    @property
    def pictures(self) -> Pictures:
        """The pictures that were given to models."""
        return Pictures(self.workspace.own / "pictures")

    @cached_property
    def connections(self) -> Connections:
        """The connections to the outside."""
        return Connections(self.workspace.connections)

    def run(self, name: str) -> RunFiles:
        """Return the files of a run. RunError if there is none with this name."""
        return RunFiles(self.workspace.run(name))

    def close(self) -> None:
        """Tell streams of events that the studio ends."""
        self.ended.set()


def studio_of(request: Request) -> Studio:
    """Return the parts of the studio that a request belongs to (a FastAPI dependency)."""
    studio: Studio = request.app.state.studio
    return studio


def page(request: Request, template: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    """Return a page of the studio in the language of the request."""
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    opened = studio_of(request).connections.opened()
    looks = Looks.of(request)
    shared = {
        "path": path,
        "root": "../" * (path.count("/") - 1) or "./",
        "opened": opened,
        "looks": looks,
        "back_here": f"{path}?{request.url.query}".rstrip("?") if request.method == "GET" else "/",
    }
    text = render_page(template, {**shared, **values}, translations(looks.language))
    return HTMLResponse(text, status)
