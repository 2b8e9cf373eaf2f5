"""What the OpenAPI document of a server says about bodies, answers and errors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

BYTES = {"schema": {"type": "string", "format": "binary"}}

JSON_IMAGES = {
    "schema": {
        "type": "object",
        "required": ["images"],
        "additionalProperties": False,
        "properties": {
            "images": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "anyOf": [
                        {"type": "string", "description": "The file in base64."},
                        {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {
                                "data": {"type": "string", "description": "The file in base64."},
                                "url": {
                                    "type": "string",
                                    "description": "Where it is, on a host that is allowed.",
                                },
                                "name": {"type": "string", "description": "Its name in the answer."},
                            },
                        },
                    ]
                },
            }
        },
    },
    "example": {"images": [{"name": "cat.jpg", "data": "/9j/4AAQSkZJRg…"}]},
}

FORM = {
    "schema": {
        "type": "object",
        "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
    }
}

IMAGES_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"image/*": BYTES, "multipart/form-data": FORM, "application/json": JSON_IMAGES},
    }
}

IMAGE_BODY = IMAGES_BODY


TENSOR_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": {"type": "string"},
                        "parameters": {"type": "object"},
                        "inputs": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": 1,
                            "items": {
                                "type": "object",
                                "required": ["name", "datatype", "shape"],
                                "properties": {
                                    "name": {"type": "string"},
                                    "datatype": {"enum": ["BYTES", "UINT8"]},
                                    "shape": {"type": "array", "items": {"type": "integer"}, "maxItems": 4},
                                    "data": {"type": "array"},
                                },
                            },
                        },
                    },
                },
                "example": {
                    "inputs": [
                        {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["/9j/4AAQSkZJRg…"]}
                    ]
                },
            }
        },
    }
}


class Error(BaseModel):
    """Why there is no answer, in a sentence that also says what to do."""

    model_config = ConfigDict(extra="allow")
    error: str


class Answer(BaseModel):
    """The answer for one image: its prediction, as `vitrail predict --json` gives it, and how it came about."""

    model_config = ConfigDict(extra="allow")
    name: str
    error: str | None = Field(None, description="Why this image cannot be read; then there is nothing else.")
    point: str | None = Field(None, description="The operating point of the network.")
    backend: str | None = Field(None, description="How the network was computed.")
    batch: int | None = Field(None, description="How many images were computed together.")
    queue_ms: float | None = None
    decode_ms: float | None = None
    network_ms: float | None = None


class Served(BaseModel):
    """The model that answered."""

    name: str
    sha256: str


class Answers(BaseModel):
    """The answers for the images of a request, in their order."""

    answers: list[Answer]
    model: Served
    total_ms: float = Field(description="Milliseconds from the last byte of the request to the answer.")
    late: bool = Field(description="Whether that was more than was promised.")


class Card(BaseModel):
    """What is served."""

    name: str
    task: str
    labels: list[str]
    sha256: str
    input: list[int] = Field(description="Channels, height and width of the network's input.")
    bands: list[dict[str, Any]] = Field(
        description="Bands that files must hold: name, unit, range in training."
    )
    weights: str
    licence: str
    points: list[dict[str, Any]] = Field(description="Operating points, the most accurate first.")
    promise_ms: float | None
    largest_batch: int
    workers: int
    methods: list[str] = Field(description="How predictions can be explained.")
    limits: dict[str, Any]
    text: str = Field(description="The model card of the run, in Markdown.")


class State(BaseModel):
    """The state of the server; what is not asked for is left out."""

    model_config = ConfigDict(extra="forbid")
    live: bool = True
    started: bool | None = None
    ready: bool | None = None


def _error(words: str) -> dict[str, Any]:
    return {"model": Error, "description": words}


ERRORS: dict[int | str, dict[str, Any]] = {
    400: _error("The request cannot be understood."),
    401: _error("The token is missing or wrong."),
    403: _error("The server does not fetch this URL."),
    408: _error("The body did not arrive in time."),
    413: _error("The body, an image, or their number is too large."),
    422: _error(
        "No image can be read, an option does not fit the model, or even a free server would be too slow."
    ),
    429: _error("It cannot be answered in time now; `Retry-After` says when to try again."),
    503: _error("No worker is ready, or the server is ending; `Retry-After` says when to try again."),
}

EXPLAINED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Where the network looked: JSON with the grid and the figure, or the figure alone.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["name", "point", "method", "of", "grid", "png"],
                    "properties": {
                        "name": {"type": "string"},
                        "point": {"type": "string"},
                        "method": {"type": "string"},
                        "of": {"type": "string"},
                        "choices": {"type": "array", "items": {"type": "string"}},
                        "grid": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
                        "png": {"type": "string", "description": "The figure, in base64."},
                    },
                }
            },
            "image/png": BYTES,
        },
    }
}
