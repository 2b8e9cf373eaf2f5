"""Bytes to a server and its answer, over a socket of its own: nothing is corrected on the way."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

PATIENCE = 60.0
"""Seconds in which an answer has to be there."""

MOST = 1 << 20
"""Bytes of an answer that are read."""


class Answer(NamedTuple):
    """Status code of an answer (0: the connection ended without one, -1: nothing came), and its body."""

    code: int
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


class Asked(NamedTuple):
    """A request as bytes; `codes`: the answers that are right, any below 500 by default; 0 is the end without one."""

    name: str
    data: bytes
    codes: tuple[int, ...] = ()
    hang_up: bool = False

    def wrong(self, answer: Answer) -> bool:
        """Whether the answer is none that was due."""
        if self.hang_up:
            return False
        return answer.code not in self.codes if self.codes else not 200 <= answer.code < 500


class Tally:
    """Counts of answers by code, and sentences about those that are wrong."""

    def __init__(self) -> None:
        self.codes: Counter[str] = Counter()
        self.wrong: list[str] = []

    def count(self, asked: Asked, answer: Answer) -> None:
        """Count an answer."""
        words = {0: "ended", -1: "silent"}
        self.codes["hung up" if asked.hang_up else words.get(answer.code, str(answer.code))] += 1
        if asked.wrong(answer):
            self.wrong.append(f"{asked.name}: {answer.code} {answer.body[:200]!r}, sent {asked.data[:200]!r}")


class Address(NamedTuple):
    """Where a server listens, and its token."""

    host: str
    port: int
    token: str = ""

    @property
    def link(self) -> str:
        return f"http://{self.host}:{self.port}"

    def head(self, line: str, *fields: str, token: bool = True) -> bytes:
        """Return the head of a request."""
        shown = (f"Authorization: Bearer {self.token}",) if token and self.token else ()
        given = (f"Host: {self.host}:{self.port}", *shown, *fields)
        return "\r\n".join((f"{line} HTTP/1.1", *given, "", "")).encode("utf-8", "surrogateescape")

    def post(self, path: str, body: bytes, kind: str = "image/jpeg", *fields: str) -> bytes:
        """Return a whole request."""
        named = (f"Content-Type: {kind}", f"Content-Length: {len(body)}", *fields)
        return self.head(f"POST {path}", *named, "Connection: close") + body

    def open(self) -> socket.socket:
        """Return a connection."""
        return socket.create_connection((self.host, self.port), PATIENCE)

    def ask(self, asked: Asked) -> Answer:
        """Send a request and return its answer; with `hang_up` the connection ends at once."""
        with self.open() as connection:
            sent(connection, [asked.data])
            return Answer(-1) if asked.hang_up else answer_of(connection)


def sent(connection: socket.socket, parts: Iterable[bytes]) -> int:
    """Send parts until all are sent or the other side takes no more; return the number of bytes."""
    count = 0
    with suppress(OSError):
        for part in parts:
            connection.sendall(part)
            count += len(part)
    return count


def answer_of(connection: socket.socket, patience: float = PATIENCE) -> Answer:
    """Return the answer that comes."""
    connection.settimeout(patience)
    got = b""
    try:
        while len(got) < MOST and not _complete(got):
            part = connection.recv(65536)
            if not part:
                break
            got += part
    except TimeoutError:
        return Answer(-1)
    except OSError:
        pass  # a server that reads no further may reset the connection after its answer
    line, _, _ = got.partition(b"\r\n")
    words = line.split(b" ")
    code = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    return Answer(code, got.partition(b"\r\n\r\n")[2])


def _complete(got: bytes) -> bool:
    head, found, body = got.partition(b"\r\n\r\n")
    for field in head.lower().split(b"\r\n"):
        if field.startswith(b"content-length:"):
            return bool(found) and len(body) >= int(field.partition(b":")[2])
    return False
