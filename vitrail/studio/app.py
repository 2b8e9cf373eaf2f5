"""The web application of a studio: its parts, the guard around it, and its pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib.resources import files

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.middleware.base import BaseHTTPMiddleware

from vitrail.core.access import LOCAL
from vitrail.core.errors import VitrailError
from vitrail.studio.app_parts import Studio, page
from vitrail.studio.database import Database
from vitrail.studio.image_parts import ImageParts
from vitrail.studio.jobs import Queue
from vitrail.studio.routes import routers
from vitrail.studio.security import Guard
from vitrail.studio.workspace import Workspace


def create_app(workspace: Workspace, token: str, hosts: Iterable[str] = LOCAL) -> FastAPI:
    """Return the application for a workspace; its queue runs while the application does.

    Raises:
        RunError: the workspace cannot be written, or its database not be opened.
    """
    workspace.make()
    database = Database(workspace.database)
    queue = Queue(workspace, database)
    studio = Studio(workspace, database, queue, ImageParts.of(workspace, database, queue))

    @asynccontextmanager
    async def alive(app: FastAPI) -> AsyncIterator[None]:
        studio.queue.start()
        studio.images.start()
        yield
        studio.images.close()
        studio.close()
        studio.queue.close()

    app = FastAPI(title="vitrail studio", docs_url=None, redoc_url=None, openapi_url=None, lifespan=alive)
    app.state.studio = studio
    app.add_middleware(BaseHTTPMiddleware, dispatch=Guard(token, hosts))
    static = files("vitrail.studio") / "static"
    app.mount("/static", StaticFiles(directory=str(static)), name="static")
    app.add_exception_handler(VitrailError, _refused)
    for router in routers():
        app.include_router(router)
    return app


def _refused(request: Request, error: Exception) -> Response:
    """Show an error as a sentence, with what to do; never a traceback. A script gets the sentence alone."""
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"sentence": str(error)}, 422)
    return page(request, "error.html", {"sentence": str(error)}, 422)
