"""The connections to the outside that a studio and its commands open: each is written down, and the pages count them.

Python tells a hook of every connection and of every name that is looked up (PEP 578). What compiled libraries open by
themselves is not seen, but they too look names up through Python here.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

KEPT = 200
"""Number of connections that are listed."""

Note = Callable[[str, bool], None]
"""Takes what was reached, and whether a connection was opened (else only a name was looked up)."""


class Connection(NamedTuple):
    """What a process reached, or tried to reach, outside of this machine; `opened` is False for a name looked up."""

    time: float
    who: str
    where: str
    opened: bool


class Connections:
    """The connections of a studio, in a file to which each of its processes appends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._counted, self._opened = 0, 0  # bytes of the file, and what was opened in them

    def all(self) -> list[Connection]:
        """Return all that were written down, the newest first."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        return [found for line in reversed(lines) if (found := _read(line)) is not None]

    def opened(self) -> int:
        """Return how many connections were opened; every page asks, so only what is new in the file is read."""
        with self._lock:
            try:
                with self.path.open("rb") as handle:
                    if handle.seek(0, os.SEEK_END) < self._counted:
                        self._counted = self._opened = 0  # it was emptied
                    handle.seek(self._counted)
                    whole = handle.read()
            except OSError:
                whole, self._counted, self._opened = b"", 0, 0
            whole = whole[: whole.rfind(b"\n") + 1]  # the last line may still be written
            self._counted += len(whole)
            found = map(_read, whole.decode("utf-8", "replace").splitlines())
            self._opened += sum(one is not None and one.opened for one in found)
            return self._opened

    def watch(self, who: str) -> None:
        """Write down what this process reaches from now on, until it ends; `who` names it."""

        def note(where: str, opened: bool) -> None:
            line = json.dumps({"time": time.time(), "who": who, "where": where, "opened": opened})
            with suppress(OSError), self.path.open("a", encoding="utf-8") as handle:
                handle.write(line + "\n")

        sys.addaudithook(_hook(note, {socket.gethostname(), "localhost", ""}))


def _hook(note: Note, own: set[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that notes connections and names that are not of this machine."""

    def seen(event: str, values: tuple[Any, ...]) -> None:
        if event == "socket.connect":
            address = values[1]
            if isinstance(address, tuple) and not _is_local(host := str(address[0]), own):
                note(f"{host}:{address[1]}", True)
        elif event == "socket.getaddrinfo":
            host = _text(values[0])
            if not _is_address(host) and not _is_local(host, own):
                note(host, False)

    return seen


def _text(host: Any) -> str:
    return host.decode("ascii", "replace") if isinstance(host, bytes) else str(host or "")


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_local(host: str, own: set[str]) -> bool:
    """Whether a host is this machine."""
    if host in own or host.endswith(".localhost"):
        return True
    return _is_address(host) and ip_address(host.partition("%")[0]).is_loopback


def _read(line: str) -> Connection | None:
    """Return a line; None for one that was cut off when the disk was full."""
    try:
        return Connection(**json.loads(line))
    except (ValueError, TypeError):
        return None
