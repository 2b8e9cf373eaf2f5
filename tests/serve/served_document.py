"""A small OpenAPI document of a server, for tests of its page."""

from __future__ import annotations

from typing import Any

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"

REFUSAL = {"$ref": "#/components/schemas/Refusal"}
ANSWERS = {
    "200": {
        "description": "One answer an image",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Answers"}}},
    },
    "429": {"content": {"application/json": {"schema": REFUSAL}}},
}
PREDICT = {
    "summary": "Predict",
    "description": "Predict images.\n\nWhat cannot be read has an `error`.",
    "parameters": [
        {
            "name": "point",
            "in": "query",
            "description": "The operating point",
            "schema": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        {"name": "threshold", "in": "query", "schema": {"type": "number", "minimum": 0, "maximum": 1}},
        {"name": "X-Deadline-Ms", "in": "header", "required": True, "schema": {"type": ["integer", "null"]}},
    ],
    "requestBody": {
        "content": {
            "image/*": {"schema": {"type": "string", "description": "the bytes of one image"}},
            "application/json": {"example": {"images": ["BASE64"]}},
        }
    },
    "responses": ANSWERS,
}
DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "trees", "version": "1", "description": "Names trees."},
    "paths": {
        "/predict": {
            "post": {**PREDICT, "operationId": "predict_post"},
            "put": {**PREDICT, "operationId": "predict_put"},
        },
        "/card": {"get": {"summary": "Card", "responses": {"200": {"description": "The card"}, "401": {}}}},
        "/v2/models/{model}": {"get": {"responses": {"404": {}}}},
    },
    "components": {
        "schemas": {
            "Answers": {
                "type": "object",
                "properties": {
                    "answers": {"type": "array", "items": {"$ref": "#/components/schemas/Answer"}},
                    "total_ms": {"type": "number", "examples": [18.5]},
                },
            },
            "Answer": {
                "type": "object",
                "properties": {
                    "batch": {"type": "integer"},
                    "part_of": {"anyOf": [{"$ref": "#/components/schemas/Answer"}, {"type": "null"}]},
                },
            },
            "Refusal": {"properties": {"error": {"type": "string", "examples": ["The queue is full."]}}},
        }
    },
}
