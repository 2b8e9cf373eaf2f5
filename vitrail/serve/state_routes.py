"""The routes that say what is served, in what state the server is, and what it has done."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException

from vitrail.serve.gate import Json
from vitrail.serve.openapi import ERRORS, Card, State
from vitrail.serve.routes import front_of, milliseconds

router = APIRouter()


@router.get(
    "/card", operation_id="card", summary="What is served", responses={401: ERRORS[401], 503: ERRORS[503]}
)
async def card(request: Request) -> Card:
    """Say what the model is: task, labels, operating points with their scores, the promise and the limits."""
    front = front_of(request)
    facts = front.facts
    if facts is None:
        raise HTTPException(503, front.failed or "The model is not open yet.", {"retry-after": "2"})
    service, largest = front.service, front.service.largest
    points = [
        {
            "point": one.name,
            "score": None if one.score is None else one.score["value"],
            "interval": None if one.score is None else [one.score["low"], one.score["high"]],
            "images_per_second": round(largest / one.line.seconds(largest), 1),
            "one_ms": milliseconds(one.line.seconds(1)),
            "backend": one.backend,
        }
        for one in facts.points
    ]
    card = Card(
        name=facts.name,
        task=facts.task,
        labels=list(facts.labels),
        sha256=facts.sha256,
        input=[facts.channels, *facts.size],
        bands=[band._asdict() for band in facts.bands],
        weights=facts.weights,
        licence=facts.licence,
        points=points,
        promise_ms=None if service.promise is None else milliseconds(service.promise),
        largest_batch=largest,
        workers=service.workers,
        methods=list(facts.methods),
        limits=service.limits.told(),
        text=facts.card,
    )
    return cast(Card, Json(card.model_dump()))


@router.get("/health/live", operation_id="live", summary="The process runs", response_model_exclude_none=True)
async def live() -> State:
    """Say that the process runs."""
    return State(live=True)


@router.get(
    "/health/started",
    operation_id="started",
    summary="The model is open",
    response_model_exclude_none=True,
    responses={503: ERRORS[503]},
)
async def started(request: Request) -> State:
    """Say whether the model was opened; from then on this stays true."""
    front = front_of(request)
    if not front.started:
        raise HTTPException(503, front.failed or "The model is not open yet.", {"retry-after": "2"})
    return State(started=True)


@router.get(
    "/health/ready",
    operation_id="ready",
    summary="Requests are taken",
    response_model_exclude_none=True,
    responses={503: ERRORS[503]},
)
async def ready(request: Request) -> State:
    """Say whether requests are taken now: the model is open, a worker lives, and the server is not ending."""
    front = front_of(request)
    if not front.ready:
        why = "The server is ending." if front.ending else front.failed or "No worker is ready."
        raise HTTPException(503, why, {"retry-after": "2"})
    return State(ready=True)


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Numbers for Prometheus",
    response_class=PlainTextResponse,
    responses={401: ERRORS[401]},
)
async def metrics(request: Request) -> Response:
    """Return numbers for Prometheus."""
    return Response(front_of(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
