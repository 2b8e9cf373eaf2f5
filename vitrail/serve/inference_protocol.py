"""The Open Inference Protocol, version 2, as clients of KServe, Seldon and Triton speak it.

One input, `image`: BYTES, each an image file (base64 in JSON, or binary), or UINT8, pixels (n, height, width,
channels). One output, `prediction`: BYTES, each the answer for an image as JSON. `parameters.timeout` (microseconds,
as Triton has it) is the deadline; `parameters.point` names an operating point.
Source: https://github.com/kserve/open-inference-protocol, and Triton's extension for binary tensors.
"""

from __future__ import annotations

import io
import json
import math
import struct
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from vitrail import __version__
from vitrail.core.text import printable
from vitrail.serve.bodies import checked, decoded, refuse_many
from vitrail.serve.front import Limits
from vitrail.serve.gate import Json
from vitrail.serve.messages import Facts, Options, Picture
from vitrail.serve.openapi import ERRORS, TENSOR_BODY, State
from vitrail.serve.routes import answers_for, front_of, open_model, refuse_unknown_point
from vitrail.serve.state_routes import ready
from vitrail.serve.waiting import Answered, Wanted

router = APIRouter()

INPUT, OUTPUT = "image", "prediction"
HEAD_LENGTH = "inference-header-content-length"


class Tensor(BaseModel):
    """An input tensor; `data` is missing if its bytes follow the JSON."""

    model_config = ConfigDict(extra="allow")
    name: str = INPUT
    datatype: Literal["BYTES", "UINT8"]
    shape: list[int] = Field(max_length=4)
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class InferRequest(BaseModel):
    """A request of the protocol."""

    model_config = ConfigDict(extra="allow")
    id: str = ""
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    parameters: dict[str, Any] = {}


@router.get(
    "/v2",
    operation_id="server_metadata",
    summary="Open Inference Protocol: the server",
    responses={401: ERRORS[401]},
)
async def server_metadata() -> dict[str, Any]:
    """Name the server and its extensions."""
    return {"name": "vitrail", "version": __version__, "extensions": ["binary_tensor_data"]}


@router.get(
    "/v2/health/live",
    operation_id="server_live",
    summary="The process runs",
    response_model_exclude_none=True,
)
async def server_live() -> State:
    """Say that the process runs."""
    return State(live=True)


@router.get(
    "/v2/health/ready",
    operation_id="server_ready",
    summary="Requests are taken",
    response_model_exclude_none=True,
    responses={503: ERRORS[503]},
)
async def server_ready(request: Request) -> State:
    """Say whether requests are taken now."""
    return await ready(request)


MODEL_ERRORS = {404: ERRORS[400] | {"description": "There is no such model."}, **ERRORS}


@router.get(
    "/v2/models/{model}/ready",
    operation_id="model_ready",
    summary="Requests for the model are taken",
    response_model_exclude_none=True,
    responses=MODEL_ERRORS,
)
async def model_ready(request: Request, model: str) -> State:
    """Say whether the model takes requests now."""
    _refuse_other(request, model)
    return await server_ready(request)


@router.get(
    "/v2/models/{model}",
    operation_id="model_metadata",
    summary="Open Inference Protocol: the model",
    responses=MODEL_ERRORS,
)
async def model_metadata(request: Request, model: str) -> dict[str, Any]:
    """Describe the input and the output of the model."""
    _refuse_other(request, model)
    return {
        "name": model,
        "platform": "vitrail",
        "versions": ["1"],
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": OUTPUT, "datatype": "BYTES", "shape": [-1]}],
    }


@router.post(
    "/v2/models/{model}/infer",
    operation_id="infer",
    summary="Open Inference Protocol: predict",
    responses=MODEL_ERRORS,
    openapi_extra=TENSOR_BODY,
)
async def infer(request: Request, model: str) -> JSONResponse:
    """Predict the images of a tensor."""
    front = front_of(request)
    _, facts = open_model(request)
    _refuse_other(request, model)
    given, binary = _parsed(await request.body(), request.headers.get(HEAD_LENGTH))
    tensor = given.inputs[0]
    if facts.raw and tensor.datatype == "UINT8":
        raise HTTPException(422, "This model takes the values of files. Send the files themselves, as BYTES.")
    pictures = _pictures(tensor, binary, front.service.limits)
    if tensor.datatype == "BYTES" and math.prod(tensor.shape) != len(pictures):
        raise HTTPException(
            422, f"The data has {len(pictures)} elements, its shape {tensor.shape} has others."
        )
    sent = checked(pictures, front.service.limits, facts)
    wanted = _wanted(given.parameters)
    refuse_unknown_point(wanted.point, facts)
    found = await answers_for(request, sent, wanted)
    return Json(_response(model, given.id, found, facts))


def _refuse_other(request: Request, model: str) -> None:
    """Raise an HTTPException if another model is asked for; ours has the name of its run and of its network."""
    facts = open_model(request)[1]
    if model not in (facts.served, facts.name):
        raise HTTPException(
            404, f"There is no model {printable(model[:100])}; this server has {facts.served}."
        )


def _parsed(body: bytes, head: str | None) -> tuple[InferRequest, bytes]:
    """Return the JSON of a request, and the binary tensors that follow it."""
    length = len(body)
    if head is not None:
        if not (head.isascii() and head.isdigit() and len(head) < 19 and int(head) <= length):
            raise HTTPException(400, f"{HEAD_LENGTH} is no length of a part of the body.")
        length = int(head)
    try:
        return InferRequest.model_validate(json.loads(body[:length])), body[length:]
    except (ValueError, RecursionError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "it is not JSON"
        raise HTTPException(
            422, printable(f"The request is not of the Open Inference Protocol: {why}.")
        ) from error


def _pictures(tensor: Tensor, binary: bytes, limits: Limits) -> list[Picture]:
    size = tensor.parameters.get("binary_data_size")
    if size is None and tensor.data is None:
        raise HTTPException(422, f"The input {printable(tensor.name[:60])} has no data.")
    if size is not None:
        if not isinstance(size, int) or not 0 <= size <= len(binary):
            raise HTTPException(422, "binary_data_size is not the length of what follows the JSON.")
        return _of_binary(tensor, binary[:size], limits)
    if tensor.datatype == "UINT8":
        return _of_pixels(tensor, _flat(tensor.data or []), limits)
    refuse_many(len(tensor.data or []), limits)
    return [
        Picture(f"image {number}", decoded(text, f"image {number}"))
        for number, text in enumerate(_texts(tensor.data or []), 1)
    ]


def _texts(data: list[Any]) -> list[str]:
    if not all(isinstance(one, str) for one in data):
        raise HTTPException(422, "BYTES are texts in base64, one for each image.")
    return data


def _flat(data: list[Any]) -> bytes:
    try:
        values = np.asarray(data)
    except ValueError:  # lists of several lengths
        values = np.empty(0, object)
    if values.dtype.kind not in "iu" or (values.size and not 0 <= values.min() <= values.max() <= 255):
        raise HTTPException(422, "UINT8 data are whole numbers from 0 to 255.")
    return values.astype(np.uint8).tobytes()


def _of_binary(tensor: Tensor, data: bytes, limits: Limits) -> list[Picture]:
    """Return images from a binary tensor: pixels, or files that each follow their length in four bytes."""
    if tensor.datatype == "UINT8":
        return _of_pixels(tensor, data, limits)
    pictures: list[Picture] = []
    while data:
        if len(data) < 4 or len(data) < 4 + (length := struct.unpack("<I", data[:4])[0]):
            raise HTTPException(422, "A binary BYTES tensor has four bytes of length before each element.")
        pictures.append(Picture(f"image {len(pictures) + 1}", data[4 : 4 + length]))
        data = data[4 + length :]
        refuse_many(len(pictures), limits)
    return pictures


def _of_pixels(tensor: Tensor, data: bytes, limits: Limits) -> list[Picture]:
    """Return images from pixels (n, height, width, channels), or of one image without the first axis."""
    shape = tensor.shape if len(tensor.shape) == 4 else [1, *tensor.shape]
    if len(shape) != 4 or min(shape) < 1 or shape[3] not in (1, 3, 4):
        raise HTTPException(422, "The shape of UINT8 images is (n, height, width, channels).")
    refuse_many(shape[0], limits)
    if len(data) != shape[0] * shape[1] * shape[2] * shape[3]:
        raise HTTPException(
            422, f"The data has {len(data)} values; its shape {tensor.shape} needs another number."
        )
    pictures = []
    for number, pixels in enumerate(np.frombuffer(data, np.uint8).reshape(shape), 1):
        buffer = io.BytesIO()
        np.save(buffer, pixels)
        pictures.append(Picture(f"image {number}", buffer.getvalue()))
    return pictures


def _wanted(parameters: dict[str, Any]) -> Wanted:
    timeout, point = parameters.get("timeout"), parameters.get("point", "")
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < 6e8
    ):
        raise HTTPException(422, "parameters.timeout is a number of microseconds.")
    if not isinstance(point, str):
        raise HTTPException(422, "parameters.point is the name of an operating point.")
    return Wanted(Options(), point, None if timeout is None else timeout / 1e6)


def _response(model: str, id_: str, found: list[Answered], facts: Facts) -> dict[str, Any]:
    told = [{"error": one.told.error} if one.told.error else dict(one.told.plain) for one in found]
    points = ",".join(dict.fromkeys(one.point for one in found))
    data = [json.dumps(one, ensure_ascii=False) for one in told]
    return {
        "model_name": model,
        "model_version": "1",
        **({"id": id_} if id_ else {}),
        "parameters": {"point": points, "batch": max(one.batch for one in found), "sha256": facts.sha256},
        "outputs": [{"name": OUTPUT, "datatype": "BYTES", "shape": [len(data)], "data": data}],
    }
