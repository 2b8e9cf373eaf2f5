"""What every request passes first: the token, the host, and the limits of its body. Plain ASGI, before any parsing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from vitrail.core.access import LOCAL, host_of, same
from vitrail.serve.front import Front

LOOK = 0.5
"""Seconds without a part of a body after which it is looked whether the server is ending."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

OPEN = ("/health/live", "/health/ready", "/health/started", "/v2/health/live", "/v2/health/ready")
"""Paths that need no token: probes of container platforms send none, and the answers say nothing about the model."""

PAGES = ("/", "/openapi.json", "/static/")
"""The page about the interface, which is the same for every model of this version."""


class Gate:
    """Refuses requests without the token or for another host, and bodies that are too large or too slow.

    A body is refused by its stated length before any of it is read; one without a length, when it has become too long.
    Without a token only this machine reaches the server, and only requests that name it are taken: pages in a browser
    could otherwise lead a name of theirs here.
    """

    def __init__(self, app: App, front: Front) -> None:
        self.app, self.front = app, front

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.monotonic()
        headers = Headers(scope=scope)
        code = 500

        async def counted(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        refusal = self._refusal(scope, headers)
        try:
            if refusal is not None:
                await refusal(scope, receive, counted)
            else:
                await self.app(scope, _Body(scope, receive, self.front).receive, counted)
        finally:
            path = _known(scope["path"])
            self.front.metrics.request(path, code, time.monotonic() - began)

    def _refusal(self, scope: MutableMapping[str, Any], headers: Headers) -> JSONResponse | None:
        path, token, limits = scope["path"], self.front.service.token, self.front.service.limits
        if not token and host_of(headers.get("host", "")).lower() not in LOCAL:
            return refused(
                421, "This server answers to localhost only. Start it with a token for other names."
            )
        public = path in OPEN or path in PAGES or path.startswith(PAGES[-1])
        if token and not public and not _shown(headers, token):
            answer = refused(401, "This server needs its token: send the header Authorization: Bearer TOKEN.")
            answer.headers["www-authenticate"] = "Bearer"
            return answer
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or len(length) > 18:
            return refused(400, "The header Content-Length is no number.", close=True)
        if int(length) > limits.data:
            return refused(413, _too_long(limits.data), close=True)
        return None


class _Body:
    """The body of a request: at most so many bytes, in so many seconds; notes when its last byte arrived."""

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, front: Front) -> None:
        self._scope, self._receive, self._front = scope, receive, front
        self._limits = front.service.limits
        self._read, self._until, self._whole = 0, time.monotonic() + self._limits.seconds, False

    async def receive(self) -> Message:
        """Return the next part; HTTPException if it is too much or too slow."""
        if self._whole:
            return await self._receive()
        message = await self._next()
        self._read += len(message.get("body", b""))
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        if self._whole:
            self._scope.setdefault("state", {})["arrived"] = time.monotonic()
        if self._read > self._limits.data:
            raise HTTPException(413, _too_long(self._limits.data), {"connection": "close"})
        return message

    async def _next(self) -> Message:
        """Return the next message; HTTPException if the time is over, or the server is ending and nothing comes."""
        while True:
            left = self._until - time.monotonic()
            try:
                return await asyncio.wait_for(self._receive(), max(0.01, min(left, LOOK)))
            except TimeoutError as error:
                if self._front.ending:
                    sentence, code = "The server is ending. Send the request to another one.", 503
                elif left > LOOK:
                    continue
                else:
                    seconds = self._limits.seconds
                    sentence, code = (
                        f"The body did not arrive within {seconds:g} seconds. Send it again.",
                        408,
                    )
                raise HTTPException(code, sentence, {"connection": "close"}) from error


class Json(JSONResponse):
    """JSON that holds whatever a name may be: bytes that are no UTF-8 are written as escapes."""

    def render(self, content: Any) -> bytes:
        """Return the text of a value."""
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace")


def refused(code: int, sentence: str, close: bool = False) -> JSONResponse:
    """Return a refusal; with `close`, the connection ends, so that nothing more of the body is read."""
    return Json({"error": sentence}, code, {"connection": "close"} if close else None)


def _too_long(most: int) -> str:
    return f"The body has more than {most:,} bytes. Send fewer or smaller images."


def _shown(headers: Headers, token: str) -> bool:
    kind, _, given = headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and same(given.strip(), token)


def _known(path: str) -> str:
    """Return the path for metrics: those of others are one, or anyone could fill the memory with new ones."""
    first = "/" + path.strip("/").partition("/")[0]
    return first if first in ("/", "/predict", "/explain", "/card", "/health", "/metrics", "/v2") else "other"
