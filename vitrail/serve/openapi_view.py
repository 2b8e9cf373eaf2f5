"""What an OpenAPI document says, path by path, as a page shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

Schema = Mapping[str, Any]

METHODS = ("get", "post", "put", "patch", "delete", "head", "options")

DEEPEST = 8
"""Levels of an example: a schema may hold itself."""

PLAIN = {"string": "text", "integer": 0, "number": 0.0, "boolean": False, "null": None}
"""Examples of values whose schema has none."""


class Parameter(NamedTuple):
    """A parameter: `place` is query, header or path, `kind` its type in words."""

    name: str
    place: str
    kind: str
    required: bool
    says: str


class Content(NamedTuple):
    """A body of a request or an answer: its media type, what it is, and an example as text, empty if it has none."""

    media: str
    says: str
    example: str


class Answer(NamedTuple):
    """An answer with its status code, which may also be 4XX or default."""

    code: str
    says: str
    contents: list[Content]


class Operation(NamedTuple):
    """What one or several methods of a path do; methods that do the same are one operation."""

    methods: list[str]
    title: str
    says: str
    parameters: list[Parameter]
    bodies: list[Content]
    answers: list[Answer]


class Path(NamedTuple):
    """A path, below the address of the server, and its operations."""

    path: str
    operations: list[Operation]


def paths_of(document: Schema) -> list[Path]:
    """Return the paths of an OpenAPI document of version 3, in its order."""
    return [
        Path(path, _Reader(document).operations(item)) for path, item in document.get("paths", {}).items()
    ]


class _Reader:
    """Reads the parts of a document, whose references it follows."""

    def __init__(self, document: Schema) -> None:
        self.document = document

    def operations(self, item: Schema) -> list[Operation]:
        found: list[Operation] = []
        for method in METHODS:
            if method not in item:
                continue
            one = self._operation(method.upper(), item[method], item.get("parameters", []))
            like = next((other for other in found if other[3:] == one[3:] and other.says == one.says), None)
            if like is None:
                found.append(one)
            else:
                like.methods.append(method.upper())
        return found

    def _operation(self, method: str, operation: Schema, shared: list[Schema]) -> Operation:
        parameters = [
            self._parameter(self._whole(one)) for one in [*shared, *operation.get("parameters", [])]
        ]
        body = self._whole(operation.get("requestBody", {}))
        answers = [self._answer(str(code), one) for code, one in operation.get("responses", {}).items()]
        title, says = operation.get("summary", ""), operation.get("description", "")
        return Operation([method], title, says, parameters, self._contents(body), answers)

    def _parameter(self, parameter: Schema) -> Parameter:
        schema = self._whole(parameter.get("schema", {}))
        says = parameter.get("description") or schema.get("description", "")
        required = bool(parameter.get("required"))
        return Parameter(parameter["name"], parameter["in"], self.kind(schema), required, says)

    def _answer(self, code: str, answer: Schema) -> Answer:
        whole = self._whole(answer)
        usual = HTTPStatus(int(code)).phrase if code.isdigit() and int(code) in set(HTTPStatus) else ""
        return Answer(code, whole.get("description") or usual, self._contents(whole))

    def _contents(self, holder: Schema) -> list[Content]:
        return [self._content(media, one) for media, one in holder.get("content", {}).items()]

    def _content(self, media: str, content: Schema) -> Content:
        schema = self._whole(content.get("schema", {}))
        says = schema.get("description", "")
        named = [self._whole(one) for one in content.get("examples", {}).values()]
        if "example" in content or named:
            value = content["example"] if "example" in content else named[0].get("value")
        elif "json" in media and schema:
            value = self.example(schema)
        else:
            return Content(media, says, "")
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
        return Content(media, says, text)

    def example(self, schema: Schema, depth: int = 0) -> Any:
        """Return a value that a schema allows: its own example, default or first choice where it states one."""
        schema = self._whole(schema)
        if schema.get("examples"):
            return schema["examples"][0]
        for word in ("example", "const", "default"):
            if schema.get(word) is not None:
                return schema[word]
        if schema.get("enum"):
            return schema["enum"][0]
        for word in ("allOf", "anyOf", "oneOf"):
            if ways := schema.get(word):
                return self.example(self._main(ways), depth)
        if depth > DEEPEST:
            return "…"
        if "properties" in schema or schema.get("type") == "object":
            return {name: self.example(one, depth + 1) for name, one in schema.get("properties", {}).items()}
        if schema.get("type") == "array":
            return [self.example(schema.get("items", {}), depth + 1)]
        return PLAIN.get(self._type(schema), "…")

    def kind(self, schema: Schema) -> str:
        """Return the type of a value in words: integer, 1 to 8."""
        schema = self._whole(schema)
        if "enum" in schema:
            return " or ".join(str(one) for one in schema["enum"])
        if ways := schema.get("anyOf") or schema.get("oneOf"):
            kinds = [self.kind(one) for one in ways]
            return " or ".join(dict.fromkeys(one for one in kinds if one != "null"))
        if schema.get("type") == "array":
            return f"list of {self.kind(schema.get('items', {})) or 'values'}"
        words = [self._type(schema), *self._bounds(schema)]
        if schema.get("default") is not None:
            words.append(f"default {json.dumps(schema['default'], ensure_ascii=False)}")
        return ", ".join(word for word in words if word)

    def _bounds(self, schema: Schema) -> Iterator[str]:
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        if low is not None and high is not None:
            yield f"{low} to {high}"
        elif low is not None:
            yield f"{'at least' if 'minimum' in schema else 'more than'} {low}"
        elif high is not None:
            yield f"{'at most' if 'maximum' in schema else 'less than'} {high}"

    def _type(self, schema: Schema) -> str:
        stated = schema.get("type", "")
        if isinstance(stated, list):  # OpenAPI 3.1 writes "or nothing" as a second type
            return next((one for one in stated if one != "null"), "null")
        return str(stated)

    def _main(self, ways: list[Schema]) -> Schema:
        """Return the first of several schemas that is not null."""
        return next((one for one in ways if one.get("type") != "null"), ways[0])

    def _whole(self, part: Schema) -> Schema:
        """Return a part of the document, or what it refers to: #/components/schemas/Card."""
        seen = 0
        while "$ref" in part and seen < DEEPEST:
            found: Any = self.document
            for word in str(part["$ref"]).removeprefix("#/").split("/"):
                found = found.get(word.replace("~1", "/").replace("~0", "~"), {})
            part, seen = found, seen + 1
        return part
