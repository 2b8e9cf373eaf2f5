"""The web application of a server: its routes, the gate before them, its page, and errors as sentences."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException

from vitrail import __version__
from vitrail.core.text import printable
from vitrail.serve import explain_route, inference_protocol, routes, state_routes
from vitrail.serve.api_page import HEADERS, api_page, page_file
from vitrail.serve.front import Front
from vitrail.serve.gate import Gate, Json

ABOUT = "Predictions of a model that vitrail trained: in time, at the operating point that the load allows."


def create_app(front: Front) -> FastAPI:
    """Return the application of a server; whoever runs it opens and closes the front."""
    app = FastAPI(
        title="vitrail serve", version=__version__, description=ABOUT, docs_url=None, redoc_url=None
    )
    app.state.front = front
    for part in (routes, explain_route, state_routes, inference_protocol):
        app.include_router(part.router)
    app.add_api_route("/", _page, include_in_schema=False)
    app.add_api_route("/static/{name}", _static, include_in_schema=False)
    app.add_exception_handler(HTTPException, _sentence)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(routes.ClientGone, _nobody)
    app.add_middleware(Gate, front=front)
    return app


async def _page(request: Request) -> Response:
    front = routes.front_of(request)
    name = front.facts.name if front.facts else front.service.model.path
    page = api_page(request.app.openapi(), name, bool(front.service.token))
    return HTMLResponse(page, headers=dict(HEADERS))


async def _static(name: str) -> Response:
    found = page_file(name)
    if found is None:
        return Json({"error": f"There is no file {printable(name)}."}, 404)
    return Response(found.data, media_type=found.media_type, headers=dict(HEADERS))


async def _sentence(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {
        404: "There is nothing at this address. GET / lists what there is.",
        405: "This address takes other methods; GET / lists them.",
    }
    sentence = known.get(error.status_code, printable(str(error.detail)))
    return Json({"error": sentence}, error.status_code, error.headers)


async def _not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first: Any = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("query", "header", "body"))
    return Json({"error": printable(f"{place}: {first['msg']}.")}, 422)


async def _nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # the client has gone; the code is for the metrics
