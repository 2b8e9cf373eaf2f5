"""Requests that are large, slow or many at once, and what the server has to do with them."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

from bench.fuzz_client import Address, Answer, Asked, answer_of, sent
from bench.fuzz_images import file_of, huge_png, huge_tiff, whole, zip_bomb_png
from bench.fuzz_requests import form_of

GIGABYTE = 1 << 30
Judged = tuple[Asked, Answer]


def named(address: Address, model: str) -> Iterator[Judged]:
    """Send the files and bodies that are refused by what they state; yield each with its answer."""
    small = file_of(whole(0, 8), "PNG")
    text = base64.b64encode(small).decode()
    many = json.dumps({"images": [text] * 10_000}).encode()
    tensor = {"name": "image", "datatype": "BYTES", "shape": [10_000], "data": [text] * 10_000}
    form = "multipart/form-data; boundary=fuzz"
    bodies = (
        ("PNG of 40,000 × 40,000", "/predict", huge_png(), "image/png", (413,)),
        ("TIFF of 40,000 × 40,000", "/predict", huge_tiff(), "image/tiff", (413,)),
        ("PNG of 7,000 × 7,000 in kilobytes", "/predict", zip_bomb_png(), "image/png", (200, 422, 429)),
        ("10,000 images in JSON", "/predict", many, "application/json", (413,)),
        ("10,000 images in a form", "/predict", form_of([small] * 10_000), form, (413,)),
        ("10,000 images in a tensor", f"/v2/models/{model}/infer", json.dumps({"inputs": [tensor]}).encode(),
         "application/json", (413,)),
        ("code instead of a method", "/explain?method=os:system", small, "image/png", (422,)),
    )  # fmt: skip
    for name, path, body, kind, codes in bodies:
        asked = Asked(name, address.post(path, body, kind), codes)
        yield asked, address.ask(asked)


def stated_body(address: Address, size: int = 5 * GIGABYTE) -> Judged:
    """State a body of 5 GB: refused before any of it is read."""
    asked = Asked("a body of 5 GB", address.head("POST /predict", f"Content-Length: {size}"), (413,))
    return asked, address.ask(asked)


def endless_body(address: Address, most: int = 5 * GIGABYTE) -> tuple[Asked, Answer, int]:
    """Send chunks without end; return how many bytes the server took before it ended that."""
    asked = Asked("a body without end", address.head("POST /predict", "Transfer-Encoding: chunked"), (413, 0))
    part = f"{1 << 20:x}\r\n".encode() + bytes(1 << 20) + b"\r\n"
    with address.open() as connection:
        connection.settimeout(20)
        connection.sendall(asked.data)
        taken = sent(connection, (part for _ in range(most >> 20)))
        return asked, answer_of(connection), taken


def large_head(address: Address, size: int = 10 << 20) -> Judged:
    """Send a head that is far too large, in one field."""
    asked = Asked("a head of 10 MB", b"GET /card HTTP/1.1\r\nHost: localhost\r\nX: ", (0, 400, 431))
    with address.open() as connection:
        connection.settimeout(20)
        sent(connection, [asked.data, *([b"x" * 65536] * (size >> 16)), b"\r\n\r\n"])
        return asked, answer_of(connection)


def slow(address: Address, count: int, seconds: float) -> Iterator[Judged]:
    """Open connections that send a byte a second, half in the head and half in the body, for so long.

    While they hang the server must answer others; after `seconds` all of them must have ended.
    """
    head = Asked("a slow head", address.head("POST /predict")[:-2], (0, 408))
    body = Asked("a slow body", address.head("POST /predict", "Content-Length: 1000"), (408,))
    with ExitStack() as stack:
        open_ = [
            (asked, stack.enter_context(address.open())) for asked in (head, body) for _ in range(count // 2)
        ]
        for asked, connection in open_:
            sent(connection, [asked.data])
        until = time.monotonic() + seconds
        done: dict[socket.socket, Judged] = {}
        while time.monotonic() < until and len(done) < len(open_):
            time.sleep(0.5)
            for asked, connection in open_:
                if connection not in done and (answer := _ended(connection)) is not None:
                    done[connection] = asked, answer
        for asked, connection in open_:
            yield done.get(connection, (asked, Answer(-1)))


def _ended(connection: socket.socket) -> Answer | None:
    """Send one more byte; return the answer if the server has ended the connection."""
    connection.setblocking(False)
    with suppress(BlockingIOError):
        try:
            if connection.recv(1, socket.MSG_PEEK) == b"":
                return Answer(0)
            return answer_of(connection, 5.0)
        except BlockingIOError:
            connection.send(b"x")
        except OSError:
            return Answer(0)
    return None
