"""What goes wrong around a studio: it is killed, a disk is full, no name can be resolved."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

pytest.importorskip("fastapi", reason="the studio's extra is not installed")

from data.pictures import folders
from fastapi.testclient import TestClient
from studio_runs import end_trainings, studio

from vitrail.studio.app import create_app
from vitrail.studio.database import Database
from vitrail.studio.events import events_from
from vitrail.studio.jobs import Job, Queue
from vitrail.studio.workspace import Workspace

TINY = {
    "model": "vit_digits_narrow", "weights": "none", "tune": "scratch", "epochs": "2", "workers": "0", "batch": "8",
    "micro": "8",
}  # fmt: skip

LIMIT = 120.0
"""Seconds after which a test gives up; nothing is asserted about how long it takes."""

NO_NAMES = """
import socket, time
numeric = {"127.0.0.1", "::1", "localhost", None, ""}
def hang(name, *rest, **named):
    host = name[0] if isinstance(name, tuple) else name
    if host not in numeric:
        open(%r, "a").write(f"{host}\\n")
        time.sleep(3600)
    return plain[0](name, *rest, **named)
plain = [socket.getaddrinfo]
socket.getaddrinfo = hang
for other in ("gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo", "getfqdn"):
    setattr(socket, other, hang)
"""
"""A resolver that never answers, as in a network that swallows questions; it writes down what it was asked."""


def until(what: Callable[[], object], why: str) -> object:
    limit = time.monotonic() + LIMIT
    while time.monotonic() < limit:
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError(f"did not happen: {why}")


def opened(workspace: Workspace) -> TestClient:
    """Return a browser without scripts that opened the link of a studio."""
    client = TestClient(create_app(workspace, "key", ("testserver",)))
    client.get("/?token=key")
    return client


def kinds(run: Path) -> list[str]:
    return [one.event["event"] for one in events_from(run / "history.jsonl", 0)]


def test_a_killed_studio_finds_three_jobs_and_the_adopted_one_is_done_once(
    tmp_path: Path, some_digits: Callable[[str, int], Path]
) -> None:
    """Complaints 1 and 5. The training is held until the next studio is there, so that it ends under its eyes."""
    workspace = Workspace(tmp_path)
    workspace.make()
    shutil.copytree(some_digits("01", 20), workspace.data / "digits")
    queue = Queue(workspace, Database(workspace.database))
    try:
        with studio(tmp_path) as first:
            for _ in range(3):
                first.client.post("/data/digits/train", data=TINY)
            until(lambda: "step" in kinds(workspace.runs / "digits"), "the first training has a step")
            training = psutil.Process(queue.active()[0].pid)
            training.suspend()
            first.process.kill()
            first.process.wait()
        with studio(tmp_path) as second:
            assert [(job.run, job.state) for job in queue.active()] == [
                ("digits", "running"), ("digits-2", "queued"), ("digits-3", "queued")
            ]  # fmt: skip
            page = second.client.get("/queue").text
            assert page.index("digits-3") > page.index("digits-2") > page.index("digits")
            second.client.post(f"/queue/{queue.active()[2].id}/stop")
            training.resume()
            until(lambda: not queue.active(), "what is in the queue is done")
            assert [one.state for one in reversed(queue.jobs())] == ["done", "done", "stopped"]
            for name in ("digits", "digits-2"):
                told = kinds(workspace.runs / name)
                assert (told.count("started"), told.count("finished")) == (1, 1)
                assert "ready" in second.client.get(f"/runs/{name}").text
    finally:
        end_trainings(tmp_path)


def test_a_full_disk_at_the_thumbnails_costs_no_thumbnail(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Complaint 11: they are made again each time, and nothing half-written is taken for one later."""
    monkeypatch.setenv("VITRAIL_CACHE", str(small_disk / "cache"))
    workspace = Workspace(tmp_path / "ws")
    folders(workspace.data / "photos", {"fern": 3, "moss": 3}, (400, 300))
    fill(small_disk)
    client = opened(workspace)
    for _ in range(2):
        answer = client.get("/data/photos/thumb?id=fern/1.png")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
    assert not [one for one in (small_disk / "cache").rglob("*") if one.is_file()]
    (small_disk / "much").unlink()
    assert client.get("/data/photos/thumb?id=fern/1.png").content == answer.content
    (kept,) = (small_disk / "cache").rglob("*.webp")
    assert kept.read_bytes() == answer.content


def test_a_full_disk_at_a_checkpoint_is_a_sentence_on_the_page_of_the_run(
    small_disk: Path, some_digits: Callable[[str, int], Path], tmp_path: Path
) -> None:
    """Complaint 11: the job says what to do, and what was saved before is whole."""
    workspace = Workspace(small_disk / "ws")
    workspace.make()
    place = tmp_path / "digits"
    shutil.copytree(some_digits("01", 20), place)
    with opened(workspace) as client:
        client.post("/data/new", data={"path": str(place)})
        client.post("/data/digits/train", data={**TINY, "model": "vit_digits"})
        queue = client.app.state.studio.queue
        job = until(lambda: [one for one in queue.jobs() if not one.active], "the training ends")[0]
        assert isinstance(job, Job)
        page = client.get(f"/runs/{job.run}").text
        assert job.state == "failed"
        assert "space" in job.error
        assert job.error in page.replace("&#39;", "'")
        assert "Traceback" not in page
        assert client.get("/").status_code == client.get("/queue").status_code == 200
    assert not [one for one in workspace.folder.rglob(".*") if one.is_file()]  # no draft of a file is left


def test_a_full_disk_at_the_queue_is_a_sentence(small_disk: Path) -> None:
    """Complaint 11: what was asked is refused in words, and can be asked again."""
    workspace = Workspace(small_disk / "ws")
    folders(workspace.data / "photos", {"fern": 2, "moss": 2}, (8, 8))
    client = opened(workspace)
    queue = client.app.state.studio.queue
    fill(small_disk)
    answer = client.post("/data/photos/train", data=TINY)
    assert answer.status_code == 422
    assert "The disk is full" in answer.text
    assert "Free some disk space" in answer.text
    (small_disk / "much").unlink()
    assert queue.active() == []
    client.post("/data/photos/train", data=TINY)
    assert [job.run for job in queue.active()] == ["photos"]


def test_the_first_pages_come_where_no_name_can_be_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Complaint 13: no network, and a resolver that hangs. Nothing is looked up at all."""
    asked = tmp_path / "asked"
    (tmp_path / "sitecustomize.py").write_text(NO_NAMES % str(asked))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}")
    probe = "import socket; print(socket.getaddrinfo.__name__)"
    assert subprocess.check_output([sys.executable, "-c", probe], text=True).strip() == "hang"
    with studio(tmp_path / "ws") as opened:
        for path in ("/", "/data", "/runs", "/runs/sample", "/runs/sample/result", "/queue"):
            assert opened.client.get(path).status_code == 200, path
    assert not asked.exists(), asked.read_text()


def fill(disk: Path) -> None:
    """Write a file that leaves no space."""
    with (disk / "much").open("wb", buffering=0) as much, suppress(OSError):
        while True:
            much.write(bytes(4096))
