"""A studio for tests of the pages about images: its application, and a browser's view of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from vitrail.studio.app import create_app
from vitrail.studio.security import COOKIE
from vitrail.studio.workspace import Workspace

TOKEN = "token-of-the-tests"
SCRIPT = {"accept": "application/json"}


@contextmanager
def studio(folder: Path) -> Iterator[TestClient]:
    """Open the studio of a folder; what the pages use is `client.app.state.studio`."""
    app = create_app(Workspace(folder), TOKEN)
    with TestClient(app, base_url="http://127.0.0.1", cookies={COOKIE: TOKEN}) as client:
        yield client


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Serve the application of an open studio on a free port of this machine, and yield its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none", lifespan="off"))
    thread = Thread(target=server.run)
    thread.start()
    try:
        while thread.is_alive() and not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join()


def images_of(client: TestClient):
    """Return the parts of the studio that hold images."""
    return client.app.state.studio.images


def send(client: TestClient, name: str, files: dict[str, bytes]) -> list[dict]:
    """Send files as the drop zone does, and return the answers."""
    return [
        client.put(f"/data/{name}/files/{path}?modified=1700000000000", content=data, headers=SCRIPT).json()
        for path, data in files.items()
    ]


def checked(client: TestClient, name: str) -> str:
    """Wait until the check of a data set is over, and return its page."""
    datasets, checks = images_of(client).datasets, images_of(client).checks
    while not checks.progress(datasets.get(name)).over:
        time.sleep(0.02)
    return client.get(f"/data/{name}/check").text
