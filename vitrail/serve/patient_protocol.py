"""HTTP connections that end when their client is too slow or says too much before its request begins."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0
"""Seconds for the head of a request; uvicorn itself waits for ever."""

HEAD_BYTES = 64 << 10
"""Largest head of a request in bytes; the parser itself takes any."""

CONNECTIONS = 1000
"""Connections at the same time: a process may open so many files, and a client could open them all."""


class PatientProtocol(HttpToolsProtocol):
    """A connection of uvicorn with limits before the first line of the application runs."""

    _patience: asyncio.TimerHandle | None = None
    _head = 0  # bytes of the head so far; 0 while a body is read or an answer is written

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request; refuse one connection too many."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
            return
        self._patience = self.loop.call_later(HEAD_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head."""
        if self._patience is not None:
            self._head += len(data)
        super().data_received(data)
        if self._patience is not None and self._head > HEAD_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of the head."""
        super().on_message_begin()
        if self._patience is None:
            self._head = 0
            self._patience = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def on_headers_complete(self) -> None:
        """Stop waiting: the application has limits of its own for the body."""
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience, self._head = None, 0
