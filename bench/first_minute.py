"""The first minute of the studio with 1,000 photographs: what a person sees, and after how many seconds.

`python -m bench.first_minute [--weights PLACE]`. A browser opens a new studio, drops the folder of photographs (those
of `bench/draft.py`), waits for the check, and trains a draft with one click, everything with empty caches. Wants
playwright, /usr/bin/chromium, and ../shared (photographs and weights) beside the repository.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil

from bench.draft import SHARED, photographs
from bench.pairs import machine

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
LIMIT = 300_000
"""Milliseconds after which a step is given up."""


class Clock:
    """Prints when something is first seen, in seconds since a click and since the studio was started."""

    def __init__(self) -> None:
        print(
            "| what is seen | s after the click | s since the start |", "|---|---|---|", sep="\n", flush=True
        )
        self.began = self.clicked = time.perf_counter()

    def click(self) -> None:
        """Begin to count the seconds of the next rows."""
        self.clicked = time.perf_counter()

    def seen(self, what: str) -> None:
        """Note that something is there."""
        now = time.perf_counter()
        print(f"| {what} | {now - self.clicked:.2f} | {now - self.began:.1f} |", flush=True)


@contextmanager
def studio(folder: Path, cache: Path) -> Iterator[str]:
    """Start a studio in a new folder with an empty cache, and yield the link that it prints."""
    command = [sys.executable, "-m", "vitrail", "studio", str(folder), "--no-browser", "--port", "0"]
    environment = {**os.environ, "VITRAIL_CACHE": str(cache)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        for one in (process, *psutil.Process(process.pid).children(recursive=True)):
            one.terminate()
        process.wait()


def drop(tab: Any, folder: Path) -> None:
    """Drop a folder onto the page, as a hand does from a window of files."""
    files = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    box = tab.locator("form.drop").first.bounding_box()
    where = {"x": box["x"] + box["width"] / 2, "y": box["y"] + 10, "data": files}
    protocol = tab.context.new_cdp_session(tab)
    for kind in ("dragEnter", "dragOver", "drop"):
        protocol.send("Input.dispatchDragEvent", {"type": kind, **where})


def walk(tab: Any, link: str, photos: Path, weights: Path, clock: Clock) -> str:
    """Go the way of the first minute, and return what the page says of the first model."""
    address = link.partition("?")[0]
    tab.goto(link)
    tab.get_by_text("Open the best model").first.wait_for()
    clock.seen("the first page, with a finished model to look at (the studio was started with the click)")
    tab.goto(f"{address}data/new")
    clock.click()
    drop(tab, photos)
    tab.locator("[data-preview] img").first.wait_for()
    clock.seen("their own images, before they have arrived")
    tab.locator("#wall .tile.at img").first.wait_for(timeout=LIMIT)
    tab.wait_for_function("() => document.querySelector('#wall .tile.at img').naturalWidth > 0")
    clock.seen("the wall of all images that have arrived")
    tab.locator("#check-line[data-over]").wait_for(timeout=LIMIT)
    clock.seen("what the check found")
    tab.goto(f"{address}data/photos/train?{urlencode({'tune': 'draft', 'weights': weights})}")
    clock.click()
    tab.get_by_role("button", name="Train").first.click()
    tab.locator("#words .verdict[lang=en]").wait_for(timeout=LIMIT)
    clock.seen("the first scored model")
    return str(tab.locator("#words .verdict").first.inner_text())


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--weights", type=Path, default=SHARED / "weights" / "dinov2-small-saliency")
    weights = words.parse_args().weights
    if not weights.exists() or not CHROMIUM.exists():
        print(f"skipped: {weights if CHROMIUM.exists() else CHROMIUM} is not here")
        return
    from playwright.sync_api import sync_playwright

    print(machine(), end="\n\n", flush=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        photographs(folder / "photos")
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = chromium.new_page()
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        clock = Clock()
        with studio(folder / "studio", folder / "cache") as link:
            said = walk(tab, link, folder / "photos", weights, clock)
        chromium.close()
    outside = [url for url in asked if not url.startswith((link.partition("?")[0], "data:", "blob:"))]
    print(f"\n{said}\nRequests of the browser: {len(asked)}, to other hosts: {len(outside)}.")


if __name__ == "__main__":
    main()
