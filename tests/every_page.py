"""A studio in which every page has something to show, and the addresses of all its pages.

The addresses are compared with the routes of the studio, so that a new page cannot be left out of the tests that look
at each of them.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from data.pictures import encode, folders, put
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from image_studio import TOKEN, checked, served
from studio_runs import write_run
from trained_studio import RUN

from vitrail.studio.app import create_app
from vitrail.studio.routes import routers
from vitrail.studio.workspace import Workspace

PHOTOS, BIRDS = "garden walk", "birds"
PICTURE, COMMAND, FAILED = "0" * 24, "a" * 16, "b" * 16

ADDRESSES = {
    "/": ["/"],
    "/data": ["/data", "/data?deleted={bin}"],
    "/data/new": ["/data/new", f"/data/new?into={PHOTOS}"],
    "/data/{name}": [
        f"/data/{PHOTOS}", f"/data/{PHOTOS}?view=columns", f"/data/{PHOTOS}?group=fern", f"/data/{BIRDS}",
        f"/data/{PHOTOS}?finding={{finding}}", f"/data/{PHOTOS}?out=1", "/data/empty",
    ],
    "/data/{name}/image": [f"/data/{PHOTOS}/image?id=fern/2.png", f"/data/{PHOTOS}/image?id=moss/broken.png"],
    "/data/{name}/check": [f"/data/{PHOTOS}/check?done=1", f"/data/{BIRDS}/check", "/data/empty/check"],
    "/data/{name}/train": [
        f"/data/{PHOTOS}/train", f"/data/{RUN}/train", f"/data/{PHOTOS}/train?epochs=many",
        f"/data/{PHOTOS}/train?weights=none&task=classify",
    ],
    "/connections": ["/connections"],
    "/queue": ["/queue"],
    "/runs": ["/runs"],
    "/runs/{name}": [f"/runs/{RUN}", "/runs/live", "/runs/half", "/runs/waits", "/runs/lost", "/runs/gone"],
    "/runs/{name}/result": [
        f"/runs/{RUN}/result?cell={{cell}}", f"/runs/{RUN}/result?look=4", "/runs/old/result", "/runs/half/result",
    ],
    "/runs/{name}/predict": [
        f"/runs/{RUN}/predict", f"/runs/{RUN}/predict?p={{picture}}&p={{other}}", "/runs/live/predict",
    ],
    "/runs/{name}/camera": [f"/runs/{RUN}/camera", "/runs/live/camera"],
    "/runs/{name}/predict/{key}": [f"/runs/{RUN}/predict/{{picture}}"],
    "/runs/{name}/export": [f"/runs/{RUN}/export", "/runs/live/export"],
    "/gallery": ["/gallery", "/gallery?words=swin&kind=transformer&size=medium", "/gallery?words=nothing&deleted=ab"],
    "/gallery/of/{name}": ["/gallery/of/vit_s16", "/gallery/of/swin_t", "/gallery/of/vvt_t", "/gallery/of/resnet50"],
    "/gallery/mine/{name}": ["/gallery/mine/my swin"],
    "/import": ["/import"],
    "/compare": ["/compare"],
    "/compare/{name}": ["/compare/few-or-old"],
    "/studies/{kind}/{name}": [
        f"/studies/duel/{PHOTOS}", f"/studies/curve/{PHOTOS}", f"/studies/labels/{RUN}", f"/studies/robustness/{RUN}",
        f"/studies/again/{RUN}",
    ],
    "/background/{id}": [f"/background/{COMMAND}", f"/background/{FAILED}"],
}  # fmt: skip
"""Addresses of each page, by its route. Values in braces are known when the studio is there."""

PARTS = {
    "/data/{name}/card",
    "/data/{name}/check/progress",
    "/data/{name}/train/command",
    "/data/{name}/train/weights",
    "/gallery/of/{name}/weights",
    "/queue/list",
    "/runs/{name}/words",
}
"""Routes that answer with a piece of a page."""


class EveryPage(NamedTuple):
    """The address of a studio, and those of its pages below it."""

    address: str
    pages: list[str]


def page_routes() -> set[str]:
    """Return the paths of all routes that answer with HTML."""
    return {
        route.path
        for router in routers()
        for route in router.routes
        if isinstance(route, APIRoute)
        and "GET" in route.methods
        and route.endpoint.__annotations__.get("return") == "HTMLResponse"
    }


@contextmanager
def every_page(folder: Path) -> Iterator[EveryPage]:
    """Serve a studio with something on every page; the folder holds the finished run `RUN`. Nothing is trained."""
    workspace = Workspace(folder)
    _write_runs(workspace)
    _write_commands(workspace)
    _write_connections(workspace)
    app = create_app(workspace, TOKEN)
    client = TestClient(app, base_url="http://127.0.0.1")
    client.get(f"/?token={TOKEN}")
    known = {**_with_images(client, folder), **_with_pictures(client, workspace)}
    _with_jobs(client)
    pages = [one.format(**known) for addresses in ADDRESSES.values() for one in addresses]
    with served(app) as address:
        yield EveryPage(address.rstrip("/"), pages)
    app.state.studio.images.close()


def _write_runs(workspace: Workspace) -> None:
    write_run(workspace.runs, "live", steps=40)
    half = write_run(workspace.runs, "half", steps=40, end="stopped")
    (half / "state").mkdir()
    (half / "state" / "last.safetensors").touch()
    shutil.copytree(workspace.runs / RUN, workspace.runs / "old")
    (workspace.runs / "old" / "result.json").unlink()
    compared = workspace.runs / "few-or-old"
    compared.mkdir()
    (compared / "compare.html").write_text(
        "<!doctype html><html lang=en><title>few or old</title><h1>few or old</h1>"
    )
    (compared / "compare.json").write_text(json.dumps({"verdict": ["few is better by 3.1 points."]}))


def _write_connections(workspace: Workspace) -> None:
    reached = [("train", "hub.example", False), ("train", "192.0.2.7:443", True)]
    lines = [dict(zip(("who", "where", "opened"), one, strict=True), time=time.time()) for one in reached]
    workspace.connections.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _write_commands(workspace: Workspace) -> None:
    for name, kind, code, said in (
        (COMMAND, "table", "0", "24 images, 24 rows."), (FAILED, "export", "1", "onnxscript is not installed."),
    ):  # fmt: skip
        folder = workspace.own / "commands" / name
        (folder / "out").mkdir(parents=True)
        (folder / "in").mkdir()
        told = {
            "folder": name,
            "title": "garden.csv",
            "run": RUN,
            "kind": kind,
            "begun": time.time() - 9,
            "pid": 1,
        }
        (folder / "command.json").write_text(json.dumps({**told, "started": 1.0}))
        (folder / "log").write_text(said + "\n")
        (folder / "answer").touch()
        (folder / "code").write_text(code)
        if code == "0":
            (folder / "out" / "garden.csv").write_text("file,answer,probability\na.png,0,0.91\n")


def _with_images(client: TestClient, folder: Path) -> dict[str, str]:
    """Open data sets with one fault of each kind, and a decision about them."""
    root = folders(folder.parent / PHOTOS, {"fern": 12, "moss": 12}, (64, 64))
    put(root / "moss" / "same.png", (root / "fern" / "1.png").read_bytes())
    put(root / "fern" / "copy.png", (root / "fern" / "2.png").read_bytes())
    put(root / "fern" / "grey.png", encode(np.full((64, 64, 3), 90, np.uint8)))
    put(root / "moss" / "broken.png", b"no image")
    birds = folders(folder.parent / BIRDS, {"owl": 4, "jay": 4}, (24, 24))
    rows = [f"{kind}/{i}.png,{'big' if i % 2 else 'small'}" for kind in ("owl", "jay") for i in range(4)]
    put(birds / "sizes.csv", "image,label\n" + "\n".join(rows) + "\n")
    shutil.copytree(root, folder / "data" / PHOTOS)
    (folder / "data" / "empty").mkdir()
    folders(folder / "data" / "old walk", {"fern": 2}, (8, 8))
    client.post("/data/new", data={"path": str(birds)})
    deleted = client.post("/data/old walk/delete", follow_redirects=False).headers["location"]
    page = checked(client, PHOTOS)
    checked(client, BIRDS)
    client.post(f"/data/{PHOTOS}/decide", data={"what": "relabel", "id": "fern/3.png", "value": "moss"})
    client.post(f"/data/{PHOTOS}/decide", data={"what": "drop", "id": "fern/4.png"})
    return {
        "bin": deleted.partition("deleted=")[2],
        "finding": page.partition('id="card-')[2].partition('"')[0],
    }


def _with_pictures(client: TestClient, workspace: Workspace) -> dict[str, str]:
    """Give pictures to the model, and find a cell of its matrix with a wrong answer."""
    some = [sorted((workspace.data / RUN / label).iterdir())[0] for label in ("2", "3")]
    files = [("pictures", (one.name, one.read_bytes(), "image/png")) for one in some]
    answer = client.post(f"/runs/{RUN}/predict", files=files, follow_redirects=False)
    keys = [one.partition("&")[0] for one in answer.headers["location"].split("p=")[1:]]
    page = client.get(f"/runs/{RUN}/result").text
    cells = [one.partition("#")[0].partition('"')[0] for one in page.split("?cell=")[1:]]
    wrong = next(one for one in cells if one.partition("-")[0] != one.partition("-")[2])
    return {"picture": keys[0], "other": keys[1], "cell": wrong}


def _with_jobs(client: TestClient) -> None:
    """Queue jobs in each state; none of them is begun, because the studio's queue does not work here."""
    queue = client.app.state.studio.queue
    client.post(f"/data/{PHOTOS}/train")
    queue.add(PHOTOS, ("train", PHOTOS, "--out", "runs/waits"), "Training", "waits")
    lost = queue.add(PHOTOS, ("train", PHOTOS, "--out", "runs/lost"), "Training", "lost")
    gone = queue.add(PHOTOS, ("train", PHOTOS, "--out", "runs/gone"), "Training", "gone")
    live = queue.add(PHOTOS, ("train", PHOTOS, "--out", "runs/live"), "Training", "live", 3)
    started = psutil.Process().create_time()
    with queue.database.transaction() as connection:
        told = "UPDATE jobs SET state = ?, error = ?, ended = ?, pid = ?, started = ? WHERE id = ?"
        now = time.time()
        connection.execute(told, ("failed", "The disk is full. Free some disk space.", now, None, None, lost))
        connection.execute(told, ("stopped", "The job before it failed.", now, None, None, gone))
        connection.execute(told, ("running", "", None, os.getpid(), started, live))
    queue.log(live).write_text("epoch 4 of 8\n")
