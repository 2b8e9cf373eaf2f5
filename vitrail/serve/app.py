"""The web application of a server: its routes, the gate before them, its page, and errors as sentences."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from vitrail import __version__
from vitrail.core.text import printable
from vitrail.serve import explain_route, inference_protocol, routes, state_routes
from vitrail.serve.api_page import HEADERS, api_page, page_file
from vitrail.serve.front import Front
from vitrail.serve.gate import Gate, Json

ABOUT = "Predictions of a model that vitrail trained: in time, at the operating point that the load allows."

PARTS = (routes, explain_route, state_routes, inference_protocol)

UNROUTED = {
    404: "There is nothing at this address. GET / lists what there is.",
    405: "This address takes other methods; GET / lists them.",
}
"""What is said where no route fits."""


def create_app(front: Front) -> FastAPI:
    """Return the application of a server; whoever runs it opens and closes the front."""
    app = FastAPI(
        title="vitrail serve", version=__version__, description=ABOUT, docs_url=None, redoc_url=None
    )
    app.state.front = front
    for part in PARTS:
        app.include_router(part.router)
    app.add_api_route("/", _page, include_in_schema=False)
    app.add_api_route("/static/{name}", _static, include_in_schema=False)
    app.add_exception_handler(HTTPException, _sentence)
    app.add_exception_handler(RequestValidationError, _not_valid)
    for gone in (routes.ClientGone, ClientDisconnect):
        app.add_exception_handler(gone, _nobody)
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
    sentence, headers = printable(str(error.detail)), dict(error.headers or {})
    if error.detail == HTTPStatus(error.status_code).phrase:  # of the framework, not of ours
        sentence = UNROUTED.get(error.status_code, sentence)
    if error.status_code == 405 and (methods := _methods(request)):
        headers = {"allow": ", ".join(methods)}
    return Json({"error": sentence}, error.status_code, headers)


def _methods(request: Request) -> list[str]:
    """Return the methods of an address: several routes may share it, and the framework names those of one."""
    every = (route for part in PARTS for route in part.router.routes)
    found = [route for route in every if route.matches(request.scope)[0] != Match.NONE]
    return sorted({method for route in found for method in getattr(route, "methods", None) or ()})


async def _not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first: Any = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("query", "header", "body"))
    if first["type"] == "extra_forbidden":
        return Json({"error": printable(f"There is no option {place}. GET / lists those there are.")}, 422)
    return Json({"error": printable(f"{place}: {first['msg']}.")}, 422)


async def _nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # the client has gone; the code is for the metrics
