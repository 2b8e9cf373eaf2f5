"""A small server that answers as the hub does."""

from __future__ import annotations

import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LocalServer(ThreadingHTTPServer):
    """A server on this machine, at a free port, that holds files by name."""

    def __init__(self, handler: type[QuietHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.files: dict[str, bytes] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class QuietHandler(BaseHTTPRequestHandler):
    """Answers without a line for each request."""

    def log_message(self, *args: object) -> None:
        pass


class Hub(LocalServer):
    """Answers as the hub does for one repository; counts what it is asked."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.lie = False
        self.ranges: list[str | None] = []


class Handler(QuietHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range"))
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        content = self.server.files.get(self.path.lstrip("/"))
        if content is None:
            known = any(
                self.path.lstrip("/").startswith(key.split("/resolve")[0]) for key in self.server.files
            )
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        self.send_response(206 if start else 200)
        digest = "0" * 64 if self.server.lie else hashlib.sha256(content).hexdigest()
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            self.wfile.write(content[start:])
