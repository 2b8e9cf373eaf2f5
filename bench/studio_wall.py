"""The wall of the studio with a hundred thousand images: `python -m bench.studio_wall [COUNT]`.

A studio in a process of its own answers as a browser asks: the page, the plan of the wall, its first 60 tiles, a jump
to the middle, thumbnails of distinct photographs, a search. Printed are seconds, images a second, and the memory of the
studio's process. The images are hard links of a few, the photographs are made by NumPy; nothing is downloaded.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

import httpx
import numpy as np
import psutil
from PIL import Image

SEEDS, CLASSES, PHOTOGRAPHS = 200, 100, 600


def make(folder: Path, count: int) -> None:
    """Write `count` files in a hundred classes: hard links of 200 small images."""
    rng = np.random.default_rng(0)
    (folder.parent / "seeds").mkdir(parents=True)
    seeds = []
    for i in range(SEEDS):
        blocks = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        seeds.append(folder.parent / "seeds" / f"{i}.png")
        Image.fromarray(np.kron(blocks, np.ones((16, 16, 1), np.uint8))).save(seeds[-1])
    for number in range(count):
        place = folder / f"class {number % CLASSES:03d}"
        if number < CLASSES:
            place.mkdir(parents=True)
        os.link(seeds[2 * (number % CLASSES) + number // CLASSES % 2], place / f"{number:06d}.png")


def make_photographs(folder: Path) -> None:
    """Write distinct JPEG images of 1024 × 768 pixels in two classes."""
    rng = np.random.default_rng(1)
    for i in range(PHOTOGRAPHS):
        place = folder / ("even", "odd")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((1024, 768), Image.Resampling.BICUBIC).save(
            place / f"{i}.jpg", quality=85
        )


@contextmanager
def studio(folder: Path) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """Start a studio in a process of its own, and open its link."""
    environment = {**os.environ, "VITRAIL_CACHE": str(folder.parent / "cache")}
    command = [sys.executable, "-m", "vitrail", "studio", str(folder), "--no-browser", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        link = process.stdout.readline().strip()
        with httpx.Client(base_url=link.partition("?")[0], follow_redirects=True, timeout=600) as client:
            client.get(link).raise_for_status()
            yield client, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def timed(what: str, do: Callable[[], object]) -> object:
    """Do something and print how long it took."""
    begun = time.perf_counter()
    found = do()
    print(f"{what:<44}{time.perf_counter() - begun:8.3f} s", flush=True)
    return found


def thumbnails(client: httpx.Client, name: str, tiles: list[dict[str, str]]) -> None:
    """Fetch thumbnails over six connections, as browsers do, by the library's plain client, which takes little time."""
    cookie = "; ".join(f"{one.name}={one.value}" for one in client.cookies.jar)
    base = client.base_url

    def some(tiles: list[dict[str, str]]) -> None:
        connection = HTTPConnection(base.host, base.port)
        for one in tiles:
            connection.request("GET", f"/data/{name}/thumb?" + urlencode(one), headers={"Cookie": cookie})
            answer = connection.getresponse()
            assert answer.status == 200
            answer.read()
        connection.close()

    wanted = [{"id": one["id"], "v": one["v"]} for one in tiles]
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(some, [wanted[i::6] for i in range(6)]))


def wall(client: httpx.Client, name: str, memory: Callable[[], None]) -> None:
    """Ask as the page of a wall does."""
    timed("page, first time (files are listed)", lambda: client.get(f"data/{name}").raise_for_status())
    timed("page, warm", lambda: client.get(f"data/{name}").raise_for_status())
    plan = timed("plan of the wall", lambda: client.get(f"data/{name}/wall.json").json())
    assert isinstance(plan, dict)
    anchors = plan["anchors"]

    def first() -> None:
        tiles = client.get(f"data/{name}/tiles").json()
        thumbnails(client, name, tiles[:60])

    def jump(to: int) -> None:
        tiles = client.get(f"data/{name}/tiles", params={"after": anchors[to]}).json()
        thumbnails(client, name, tiles[:60])

    timed("first 60 tiles, cold", first)
    timed("first 60 tiles, warm", first)
    timed("jump to the middle, 60 tiles, cold", lambda: jump(len(anchors) // 2))
    timed("jump to the middle, 60 tiles, warm", lambda: jump(len(anchors) // 2))
    timed("jump to the end, warm list", lambda: jump(-1))
    timed("search for a name", lambda: client.get(f"data/{name}/wall.json", params={"q": "0999"}).json())
    timed("one decision", lambda: client.post(
        f"data/{name}/decide", data={"what": "drop", "id": anchors[1]}, headers={"accept": "application/json"}
    ).raise_for_status())  # fmt: skip
    timed("plan after the decision", lambda: client.get(f"data/{name}/wall.json").json())
    memory()


def photographs(client: httpx.Client) -> None:
    """Print how many thumbnails of distinct photographs are made in a second."""
    tiles = []
    plan = client.get("data/photographs/wall.json").json()
    for anchor in plan["anchors"]:
        tiles += client.get("data/photographs/tiles", params={"after": anchor}).json()
    begun = time.perf_counter()
    thumbnails(client, "photographs", tiles)
    print(
        f"{'thumbnails of 1024 × 768 photographs':<44}{len(tiles) / (time.perf_counter() - begun):8.0f} a second"
    )


def main() -> None:
    """Measure, and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(prefix="vitrail-wall-") as name:
        folder = Path(name)
        make(folder / "images" / "hundred", count)
        make_photographs(folder / "photographs")
        with studio(folder / "studio") as (client, process):

            def memory() -> None:
                print(f"{'memory of the studio':<44}{process.memory_info().rss / 1e6:8.0f} MB", flush=True)

            memory()
            for place in (folder / "images" / "hundred", folder / "photographs"):
                timed(
                    f"name {place.name}",
                    lambda place=place: client.post("data/new", data={"path": str(place)}),
                )
            photographs(client)
            wall(client, "hundred", memory)
            checked(client, memory)


def checked(client: httpx.Client, memory: Callable[[], None]) -> None:
    """Wait until every image was checked, and ask for the wall again."""
    begun = time.perf_counter()
    line = "data/hundred/check/progress"
    while re.search("check-line.*hx-trigger", client.get(line, params={"root": "../../"}).text):
        time.sleep(1)
    print(f"{'check of every image':<44}{time.perf_counter() - begun:8.1f} s", flush=True)
    timed("plan after the check", lambda: client.get("data/hundred/wall.json").json())
    timed("plan, warm", lambda: client.get("data/hundred/wall.json").json())
    memory()


if __name__ == "__main__":
    main()
