"""The images of a request: raw bytes, a form with files, or JSON with base64 or URLs."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from vitrail.core.text import one_line, printable
from vitrail.serve.front import Limits
from vitrail.serve.messages import Facts, Picture
from vitrail.serve.peek import head_of
from vitrail.serve.urls import fetched
from vitrail.serve.waiting import Sent

UNNAMED = "the image"
"""The name of an image that comes without one, in messages."""

NAME_LENGTH = 200
"""Longest name of an image, in characters."""


class GivenImage(BaseModel):
    """An image in JSON: its file in base64 as `data`, or a `url` of a host that the server allows."""

    model_config = ConfigDict(extra="forbid")
    data: str | None = None
    url: str | None = None
    name: str = ""


class GivenImages(BaseModel):
    """One or many images in JSON, each an object or only its file in base64."""

    model_config = ConfigDict(extra="forbid")
    images: Annotated[list[str | GivenImage], Field(min_length=1)]


async def images_of(request: Request, limits: Limits, facts: Facts, name: str = "") -> list[Sent]:
    """Return the images of a request; `name` is that of an image sent as raw bytes.

    Raises:
        HTTPException: there is none, there are too many, one is too large, or the body is not what it says.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        pictures = await _of_json(await request.body(), limits)
    elif kind == "multipart/form-data":
        pictures = await _of_form(request, limits)
    else:
        pictures = [Picture(_name(name) or UNNAMED, await request.body())]
    return checked(pictures, limits, facts)


def checked(pictures: Sequence[Picture], limits: Limits, facts: Facts) -> list[Sent]:
    """Return images with what their heads say; HTTPException if there is none, or one is empty or too large."""
    refuse_many(len(pictures), limits)
    if not pictures:
        raise HTTPException(422, "The request has no image. Send one: curl -T cat.jpg …/predict")
    return [_sent(one, limits, facts) for one in pictures]


def refuse_many(count: int, limits: Limits) -> None:
    """Raise an HTTPException for more images than a request may have."""
    if count > limits.images:
        raise HTTPException(
            413, f"{count} images in one request; at most {limits.images} are taken. Send fewer at once."
        )


def decoded(text: str, name: str) -> bytes:
    """Return bytes from base64, with or without the head of a data URL; HTTPException if it is not base64."""
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise HTTPException(422, f"{name} is not base64 ({error}). Encode the bytes of the file.") from error


def _sent(picture: Picture, limits: Limits, facts: Facts) -> Sent:
    if not picture.data:
        raise HTTPException(422, f"{picture.name} is empty (0 bytes). Send the bytes of an image file.")
    head = head_of(picture.data)
    if head.pixels > limits.pixels:
        size = f"has {head.width} × {head.height} pixels" if head.width else "is too large"
        raise HTTPException(
            413, f"{picture.name} {size}; at most {limits.pixels:,} are taken. Send it smaller."
        )
    return Sent(picture, head.kind, head.pixels, _work(head.pixels, facts))


def _work(pixels: int, facts: Facts) -> float:
    """Return how many inputs of the network an image is: one, or about so many windows."""
    if facts.zoom is None:
        return 1.0
    return max(1.0, pixels * facts.zoom**2 / (facts.size[0] * facts.size[1]))


async def _of_json(body: bytes, limits: Limits) -> list[Picture]:
    try:
        given = GivenImages.model_validate(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, _what_is_wrong(error)) from error
    refuse_many(len(given.images), limits)
    try:
        async with asyncio.timeout(limits.seconds):
            return await _given(given.images, limits)
    except TimeoutError as error:
        raise HTTPException(
            422, f"The images could not be fetched within {limits.seconds:g} seconds. Send the files."
        ) from error


async def _given(images: Sequence[str | GivenImage], limits: Limits) -> list[Picture]:
    """Return the images of a JSON body; what is fetched for it is together no more than a body may be."""
    pictures: list[Picture] = []
    left = limits.data
    for number, one in enumerate(images, 1):
        image = GivenImage(data=one) if isinstance(one, str) else one
        name = _name(image.name) or (UNNAMED if len(images) == 1 else f"image {number}")
        if (image.data is None) == (image.url is None):
            raise HTTPException(422, f"{name} needs either data (base64) or url.")
        if image.url is not None:
            name = _name(image.name) or _name(image.url.rpartition("/")[2]) or name
            pictures.append(Picture(name, await fetched(image.url, limits, left)))
            left -= len(pictures[-1].data)
        else:
            pictures.append(Picture(name, decoded(image.data or "", name)))
    return pictures


def _what_is_wrong(error: Exception) -> str:
    form = 'Send {"images": ["BASE64", {"name": "a.jpg", "data": "BASE64"}]}.'
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return printable(f"The JSON is not understood: {place or 'it'}: {first['msg']}. {form}")
    return f"The body is not JSON. {form}"


async def _of_form(request: Request, limits: Limits) -> list[Picture]:
    # One more than is taken, so that too many are counted and not called a broken form.
    try:
        form = await request.form(max_files=limits.images + 1, max_fields=100, max_part_size=1 << 20)
    except HTTPException as error:
        if "Too many files" in str(error.detail):
            more = f"More images in one request than the at most {limits.images} that are taken. Send fewer at once."
            raise HTTPException(413, more) from error
        if error.status_code != 400:  # the gate's: the body is too long, or too slow
            raise
        raise HTTPException(422, f"The form cannot be read: {error.detail}") from error
    pictures: list[Picture] = []
    for _, value in form.multi_items():
        if isinstance(value, UploadFile):
            name = _name(value.filename or "") or f"image {len(pictures) + 1}"
            pictures.append(Picture(name, await value.read()))
    await form.close()
    return pictures


def _name(text: str) -> str:
    """Return the last part of a name that came with an image, as it may be printed."""
    return one_line(PurePosixPath(text.replace("\\", "/")).name[:NAME_LENGTH])
