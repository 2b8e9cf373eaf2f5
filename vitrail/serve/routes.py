"""The routes that predict."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Annotated, Any, cast

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from vitrail.serve.batcher import Batcher
from vitrail.serve.bodies import images_of
from vitrail.serve.front import Front
from vitrail.serve.gate import Json
from vitrail.serve.messages import Facts, Options
from vitrail.serve.openapi import ERRORS, IMAGES_BODY, Answers
from vitrail.serve.waiting import Answered, Refused, Sent, Waiting, Wanted

router = APIRouter()

Deadline = Annotated[
    float | None,
    Header(
        alias="X-Deadline-Ms",
        gt=0,
        le=600_000,
        description="Milliseconds in which the answer is needed, from the arrival of the last byte of the request; "
        "later the answer is 429. By default the promise of the server.",
    ),
]


class PredictOptions(BaseModel):
    """Options of a prediction, as those of `vitrail predict`."""

    model_config = ConfigDict(extra="forbid")
    point: str = Field(
        "", max_length=60, description="Answer at this operating point, such as `160px/merge8`."
    )
    threshold: float | None = Field(
        None, ge=0, le=1, description="Leave out what is less likely (boxes, masks)."
    )
    sets: float | None = Field(None, gt=0, lt=1, description="Also every label that cannot be ruled out.")
    each_class: bool = Field(False, description="The share of `sets` holds for each class alone.")
    files: bool = Field(False, description="Also the files of a prediction, such as masks, in base64.")

    def options(self) -> Options:
        """Return what the worker needs of them."""
        return Options(self.threshold, self.sets, self.each_class, self.files)


def front_of(request: Request) -> Front:
    """Return the front of this server."""
    return cast(Front, request.app.state.front)


def open_model(request: Request) -> tuple[Batcher, Facts]:
    """Return the queue and the facts of the model; HTTPException if it takes no requests now."""
    front = front_of(request)
    if front.ending:
        raise HTTPException(
            503, "The server is ending. Send the request to another one.", {"retry-after": "1"}
        )
    if front.batcher is None or front.facts is None:
        raise HTTPException(
            503, "The model is not open yet. Try again in some seconds.", {"retry-after": "2"}
        )
    return front.batcher, front.facts


@router.post(
    "/predict", operation_id="predict", summary="Predict images", responses=ERRORS, openapi_extra=IMAGES_BODY
)
async def predict(
    request: Request, options: Annotated[PredictOptions, Query()], deadline: Deadline = None
) -> Answers:
    """Predict one or many images: raw bytes, a form with files, or JSON with base64."""
    return cast(Answers, await _predicted(request, options, deadline, ""))


@router.put(
    "/predict",
    operation_id="predict_put",
    summary="Predict images",
    responses=ERRORS,
    openapi_extra=IMAGES_BODY,
)
async def predict_put(
    request: Request, options: Annotated[PredictOptions, Query()], deadline: Deadline = None
) -> Answers:
    """Predict one or many images: raw bytes, a form with files, or JSON with base64."""
    return cast(Answers, await _predicted(request, options, deadline, ""))


@router.put(
    "/predict/{name}",
    operation_id="predict_named",
    summary="Predict an image under its name",
    responses=ERRORS,
    openapi_extra=IMAGES_BODY,
)
async def predict_named(
    request: Request, name: str, options: Annotated[PredictOptions, Query()], deadline: Deadline = None
) -> Answers:
    """Predict an image that is uploaded under its name: `curl -T cat.jpg …/predict/`."""
    return cast(Answers, await _predicted(request, options, deadline, name))


async def _predicted(
    request: Request, options: PredictOptions, deadline: float | None, name: str
) -> JSONResponse:
    front = front_of(request)
    _, facts = open_model(request)
    sent = await images_of(request, front.service.limits, facts, name)
    refuse_unknown_point(options.point, facts)
    seconds = None if deadline is None else deadline / 1000
    found = await answers_for(request, sent, Wanted(options.options(), options.point, seconds))
    total = time.monotonic() - _arrived(request)
    late = total > (seconds or front.service.promise or math.inf)
    if late:
        front.metrics.late(len(found))
    told = [_told(one, image) for one, image in zip(found, sent, strict=True)]
    if all(one.told.error for one in found):
        return Json({"error": found[0].told.error, "answers": told}, 422)
    backends = {one.name: one.backend for one in facts.points}
    for one, plain in zip(found, told, strict=True):
        plain["backend"] = backends.get(one.point, "")
    model = {"name": facts.name, "sha256": facts.sha256}
    return Json({"answers": told, "model": model, "total_ms": milliseconds(total), "late": late})


async def answers_for(request: Request, sent: Sequence[Sent], wanted: Wanted) -> list[Answered]:
    """Return the answers for the images of a request, as soon as all of them are there.

    Raises:
        HTTPException: they were refused, or are late for the deadline of the request.
        ClientGone: the client has hung up; its images no longer wait.
    """
    front = front_of(request)
    batcher, _ = open_model(request)
    try:
        waiting = batcher.offer(sent, wanted, _arrived(request))
    except Refused as error:
        raise refusal(error) from error
    limit = wanted.seconds if wanted.seconds is not None else front.service.limits.seconds
    try:
        return await _until(request, waiting, limit)
    except Refused as error:
        raise refusal(error) from error
    finally:
        batcher.forget(waiting)


async def _until(request: Request, waiting: Sequence[Waiting], limit: float) -> list[Answered]:
    """Wait for the answers, at most until the limit or until the client hangs up."""
    answers = asyncio.gather(*(one.answer for one in waiting))
    answers.add_done_callback(_looked_at)
    gone = asyncio.create_task(_hung_up(request))
    either: set[asyncio.Future[Any]] = {answers, gone}
    try:
        left = max(0.0, _arrived(request) + limit - time.monotonic())
        await asyncio.wait(either, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if answers.done():
            return answers.result()
        if gone.done():
            raise ClientGone
        raise Refused(f"The answer was not there within {1000 * limit:.0f} ms.", "deadline", 1.0)
    finally:
        gone.cancel()
        answers.cancel()


def _looked_at(answers: asyncio.Future[Any]) -> None:
    """Take the exception of answers that nobody waits for any more: asyncio would log it as forgotten."""
    if not answers.cancelled():
        answers.exception()


def _arrived(request: Request) -> float:
    """Return when the last byte of a request arrived: to read it, or to fetch its images, is part of its time."""
    arrived: float = request.state.arrived
    return arrived


class ClientGone(Exception):
    """The client hung up before its answer was there: nobody reads what is sent."""


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def refusal(error: Refused) -> HTTPException:
    """Return the answer to refused images."""
    sentence = str(error)
    if error.why in ("never", "options"):
        return HTTPException(422, sentence)
    seconds = max(1, math.ceil(error.again or 0))
    return HTTPException(
        503 if error.why in ("restart", "failed") else 429, sentence, {"retry-after": str(seconds)}
    )


def refuse_unknown_point(point: str, facts: Facts) -> None:
    """Raise an HTTPException for an operating point that is not served."""
    known = [one.name for one in facts.points]
    if point and point not in known:
        raise HTTPException(422, f"{point} is not served here. There are: {', '.join(known)}.")


def _told(one: Answered, image: Sent) -> dict[str, Any]:
    if one.told.error:
        return {"name": image.picture.name, "error": one.told.error}
    return {
        "name": image.picture.name,
        **one.told.plain,
        "point": one.point,
        "batch": one.batch,
        "queue_ms": milliseconds(one.queue),
        "decode_ms": milliseconds(one.decode),
        "network_ms": milliseconds(one.network),
    }


def milliseconds(seconds: float) -> float:
    """Return seconds in milliseconds, as answers state them."""
    return round(1000 * seconds, 3)
