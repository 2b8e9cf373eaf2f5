"""The route that explains one image."""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from vitrail.core.errors import RunError
from vitrail.serve.bodies import images_of
from vitrail.serve.gate import Json
from vitrail.serve.messages import UNEXPLAINED, Question, Shown
from vitrail.serve.openapi import ERRORS, EXPLAINED, IMAGE_BODY
from vitrail.serve.processes import WorkerGone
from vitrail.serve.routes import front_of, open_model, refuse_unknown_point

router = APIRouter()

EXPLAINING = 120.0
"""Longest time of an explanation, in seconds: a tested one takes several hundred forward passes."""


class ExplainOptions(BaseModel):
    """Options of an explanation, as those of `vitrail explain`."""

    model_config = ConfigDict(extra="forbid")
    method: str = Field(
        "", max_length=40, description="How to look: `relevance`, `rollout`, `gradcam`, `occlusion`."
    )
    of: str | None = Field(
        None, max_length=200, description="The class to explain; by default the predicted one."
    )
    point: str = Field("", max_length=60, description="Explain the network at this operating point.")
    test: bool = Field(
        False, description="Test the map against random order and shuffled weights; takes seconds."
    )


@router.post(
    "/explain",
    operation_id="explain",
    summary="Show where the network looked",
    responses={**ERRORS, **EXPLAINED},
    openapi_extra=IMAGE_BODY,
)
async def explain(request: Request, options: Annotated[ExplainOptions, Query()]) -> Response:
    """Show where the network looked for its prediction: JSON, or a picture with `Accept: image/png`."""
    front = front_of(request)
    _, facts = open_model(request)
    if not facts.methods:
        raise HTTPException(422, UNEXPLAINED)
    sent = await images_of(request, front.service.limits, facts)
    if len(sent) != 1:
        raise HTTPException(422, f"One image is explained at a time; the request has {len(sent)}.")
    if front.explainers.waiting >= front.explainers.MOST:
        raise HTTPException(429, "Other explanations wait already. Try again later.", {"retry-after": "5"})
    refuse_unknown_point(options.point, facts)
    point = options.point or facts.points[0].name  # the one that a free server answers at
    question = Question(sent[0].picture, options.method, options.of, point, options.test)
    try:
        shown: Shown = await front.explainers.ask(question, EXPLAINING)
    except WorkerGone as error:
        sentence = "The explanation took too long, or its process ended. Try again without test."
        raise HTTPException(429, sentence, {"retry-after": "5"}) from error
    except RunError as error:
        raise HTTPException(503, str(error)) from error
    if shown.refused:
        raise HTTPException(422, shown.refused)
    if "image/png" in request.headers.get("accept", ""):
        return Response(shown.png, media_type="image/png")
    return Json({**shown.plain, "png": b64encode(shown.png).decode()})
