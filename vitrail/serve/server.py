"""Run a server: listen at once, open the model, answer until SIGTERM or Ctrl-C, and end in order."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import uvicorn

from vitrail.core.errors import RunError
from vitrail.core.ports import EVERYWHERE, LOOPBACK, listen
from vitrail.serve.app import create_app
from vitrail.serve.front import Front, Service
from vitrail.serve.messages import Facts
from vitrail.serve.patient_protocol import PatientProtocol

NOTICE = 1.0
"""Seconds between "not ready" and the end at least, so that whoever sends requests here sees it."""

PATIENCE = 20.0
"""Seconds in which accepted requests are answered when a server ends."""

WAITING = 2048
"""Connections that the system holds until they are accepted."""


class Place:
    """Where a server listens: port 0 is any free one."""

    def __init__(self, host: str = "127.0.0.1", port: int = 8000) -> None:
        self.host, self.port = host, port

    @property
    def open_to_others(self) -> bool:
        """Whether other machines reach it."""
        return self.host not in LOOPBACK

    def link(self, port: int) -> str:
        """Return the address for people, of this machine's name if it listens everywhere."""
        host = socket.gethostname() if self.host in EVERYWHERE else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


class _Server(uvicorn.Server):
    """A server that ends in order: it tells that it is ending, answers what it accepted, and only then stops."""

    def __init__(self, config: uvicorn.Config, ended: Callable[[], None]) -> None:
        super().__init__(config)
        self._ended, self._loop = ended, asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._ended)


async def serve(front: Front, place: Place, ready: Callable[[str, Facts], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; `ready` gets the address and the facts once the model is open.

    Raises:
        RunError: the port is taken, or the model cannot be opened.
    """
    listener = listen(place.host, [place.port])
    app = create_app(front)
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        backlog=WAITING,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        server_header=False,
    )
    endings: list[asyncio.Task[None]] = []

    def end() -> None:
        if endings:  # asked twice: at once
            server.should_exit = server.force_exit = True
        endings.append(asyncio.create_task(_drained(front, server)))

    server = _Server(config, end)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    opening = asyncio.create_task(front.open())
    try:
        await asyncio.wait({serving, opening}, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            facts = opening.result()
            ready(place.link(listener.getsockname()[1]), facts)
        await serving
    except RunError:
        server.should_exit = True
        await serving
        if not front.ending:
            raise
    finally:
        opening.cancel()
        await front.close()
        listener.close()


async def _drained(front: Front, server: uvicorn.Server) -> None:
    began = time.monotonic()
    with suppress(TimeoutError):  # what is left then is cut off
        await asyncio.wait_for(front.drain(), PATIENCE)
    await asyncio.sleep(max(0.0, NOTICE - (time.monotonic() - began)))
    server.should_exit = True


def run(service: Service, place: Place, ready: Callable[[str, Facts], None]) -> None:
    """Serve a model until it is told to end; see `serve`."""
    asyncio.run(serve(Front(service), place, ready))
