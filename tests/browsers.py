"""A browser for the tests of pages, and a server on a free port; tests skip where there is no Chromium."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars")


RIGHTS = "-dac_override,-dac_read_search"
"""What lets root read every file."""


@contextmanager
def browser(program: Path = CHROMIUM, flags: Sequence[str] = ()) -> Iterator[Any]:
    """Yield a Chromium that Playwright drives."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"there is no {CHROMIUM}: the browser that the tests of pages drive")
    with playwright.sync_playwright() as drive:
        opened = drive.chromium.launch(executable_path=str(program), args=[*FLAGS, *flags])
        yield opened
        opened.close()


def bound_by_permissions(folder: Path) -> Path:
    """Return a Chromium that cannot read a file without permission, also when root runs the tests."""
    if os.geteuid() != 0:
        return CHROMIUM
    if not shutil.which("setpriv"):
        pytest.skip("root reads every file, and there is no setpriv to take that right from the browser")
    program = folder / "chromium"
    program.write_text(
        f'#!/bin/sh\nexec setpriv --bounding-set {RIGHTS} --inh-caps {RIGHTS} {CHROMIUM} "$@"\n'
    )
    program.chmod(0o755)
    return program


def drop(page: Any, selector: str, paths: list[Path]) -> None:
    """Drop files and folders of this machine onto a part of a page, as a hand does from a window of files."""
    place = page.locator(selector).first
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    files = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    where = {"x": box["x"] + box["width"] / 2, "y": box["y"] + 10, "data": files}
    protocol = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        protocol.send("Input.dispatchDragEvent", {"type": kind, **where})
    protocol.detach()


@contextmanager
def served(app: object) -> Iterator[str]:
    """Yield the address of an application that a server in a thread answers for."""
    import uvicorn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()
