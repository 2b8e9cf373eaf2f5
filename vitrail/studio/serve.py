"""Serve a studio on this machine: its address, its key, and one studio a folder."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvicorn

from vitrail.core import ports
from vitrail.core.access import LOCAL, new_token
from vitrail.core.errors import RunError
from vitrail.core.files import write_json, writing
from vitrail.core.ports import EVERYWHERE, LOOPBACK, machine_names
from vitrail.studio.app import create_app
from vitrail.studio.certificate import certificate_of
from vitrail.studio.connections import Connections
from vitrail.studio.database import Database
from vitrail.studio.prefix import Prefix
from vitrail.studio.processes import running
from vitrail.studio.sample import add_sample
from vitrail.studio.workspace import Workspace

PORT = 8420
"""The port that is tried first, so that pages which are still open find a studio that was started again."""

PATIENCE = 2
"""Seconds that open connections get to end when the studio does."""


@dataclass(frozen=True)
class Address:
    """Where a studio listens; port 0 is any free one. `allow` are other host names under which it may be opened."""

    host: str = "127.0.0.1"
    port: int | None = None
    root_path: str = ""
    allow: tuple[str, ...] = ()
    tls: bool = False

    @property
    def open_to_others(self) -> bool:
        """Whether other machines reach it."""
        return self.host not in LOOPBACK

    def hosts(self) -> tuple[str, ...]:
        """Return the hosts that a browser may name."""
        own = machine_names() if self.host in EVERYWHERE else (self.host,)
        return (*LOCAL, *own, *self.allow)

    def shown(self) -> str:
        """Return the host for the link that is printed."""
        if self.host in EVERYWHERE:
            return socket.gethostname()
        return f"[{self.host}]" if ":" in self.host else self.host


class _Server(uvicorn.Server):
    """A server that tells when it answers, and ends streams of events when it is asked to end."""

    ready: Callable[[], None]
    closing: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.closing()
        await super().shutdown(sockets)


def serve(workspace: Workspace, address: Address, ready: Callable[[str], None]) -> None:
    """Serve a workspace until Ctrl-C; `ready` gets the link with the key once the studio answers.

    Raises:
        RunError: the folder cannot be written, has a studio already, or the port is taken.
    """
    workspace.make()
    refuse_second(workspace)
    if not workspace.database.exists():
        add_sample(workspace, Database(workspace.database))
    token = token_of(workspace)
    app = create_app(workspace, token, address.hosts())
    listener = listen(address)
    port = listener.getsockname()[1]
    link = f"{'https' if address.tls else 'http'}://{address.shown()}:{port}{address.root_path}/"
    own = certificate_of(workspace.own, socket.gethostname()) if address.tls else None
    config = uvicorn.Config(
        Prefix(app, address.root_path),
        log_level="warning",
        timeout_graceful_shutdown=PATIENCE,
        ws="none",
        ssl_certfile=own.file if own else None,
        ssl_keyfile=own.key if own else None,
    )
    Connections(workspace.connections).watch("studio")
    server = _Server(config)
    server.ready = lambda: ready(f"{link}?token={token}")
    server.closing = app.state.studio.close
    present = workspace.own / "studio.json"
    write_json(present, {"pid": os.getpid(), "started": psutil.Process().create_time(), "link": link})
    try:
        with suppress(KeyboardInterrupt):  # Ctrl-C is how a studio ends
            server.run(sockets=[listener])
    finally:
        listener.close()
        with suppress(OSError):
            present.unlink()


def refuse_second(workspace: Workspace) -> None:
    """Raise a RunError if a studio already serves this workspace: two would start each job twice."""
    try:
        other = json.loads((workspace.own / "studio.json").read_text(encoding="utf-8"))
        if running(other["pid"], other["started"]) is not None:
            raise RunError(
                f"A studio for {workspace.folder} already runs at {other['link']} (process {other['pid']}). "
                "Open that page, or stop it first with Ctrl-C."
            )
    except (OSError, ValueError, KeyError, TypeError):
        return  # none, or one that was killed


def token_of(workspace: Workspace) -> str:
    """Return the key of a workspace, made once and readable by its owner only: open pages survive a restart."""
    path = workspace.own / "key"
    with suppress(OSError):
        if token := path.read_text(encoding="ascii").strip():
            return token
    token = new_token()
    with writing(path):
        _write_private(path, token)
    return token


def _write_private(path: Path, text: str) -> None:
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(number, "w", encoding="ascii") as handle:
        handle.write(text)


def listen(address: Address) -> socket.socket:
    """Return a listening socket: on the port that was asked for, else on the usual one or any that is free.

    Raises:
        RunError: the port is taken, or the host is not one of this machine.
    """
    wanted = (PORT, 0) if address.port is None else (address.port,)
    way = "Choose another one with --port, or leave it out: a free one is taken then."
    return ports.listen(address.host, wanted, way)
