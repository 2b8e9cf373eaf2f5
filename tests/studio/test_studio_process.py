"""The studio and its trainings as processes: what outlives what."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("fastapi", reason="the studio's extra is not installed")

from studio_runs import end_trainings, studio

from vitrail.studio.database import Database
from vitrail.studio.jobs import Queue
from vitrail.studio.workspace import Workspace

LONG = {"model": "vit_digits_narrow", "weights": "none", "tune": "scratch", "epochs": "4000", "workers": "0"}
"""Settings of a training that does not end by itself during a test."""

LIMIT = 120.0
"""Seconds after which a test gives up; nothing is asserted about how long it takes."""


@pytest.fixture
def folder(tmp_path, some_digits):
    """A workspace with a small data set."""
    (tmp_path / "data").mkdir()
    shutil.copytree(some_digits("01", 20), tmp_path / "data" / "digits two")
    yield tmp_path
    end_trainings(tmp_path)


def until(what, why: str):
    limit = time.monotonic() + LIMIT
    while time.monotonic() < limit:
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError(f"did not happen: {why}")


def events(run: Path) -> list[str]:
    path = run / "history.jsonl"
    if not path.exists():
        return []
    return [json.loads(line)["event"] for line in path.read_text().splitlines() if line.endswith("}")]


def test_a_studio_that_is_killed_loses_no_job_and_adopts_the_running_one(folder):
    """Complaints 1, 5 and 14: three trainings in the queue, kill -9, start again, stop in the first steps."""
    queue = Queue(Workspace(folder), Database(_made(folder).database))
    run = folder / "runs" / "digits-two"
    with studio(folder) as first:
        for _ in range(3):
            assert "waiting" in first.client.post("/data/digits two/train", data=LONG).text or queue.active()
        until(lambda: "step" in events(run), "the first training has a step")
        (running, *waiting) = queue.active()
        assert running.state == "running"
        first.process.kill()
        first.process.wait()
    assert psutil.Process(running.pid).is_running()
    with studio(folder) as second:
        assert second.link.partition("token=")[2] == first.link.partition("token=")[2]
        assert [job.id for job in queue.active()] == [running.id, *(job.id for job in waiting)]
        assert queue.job(running.id).pid == running.pid
        assert "training" in second.client.get("/runs/digits-two").text
        for job in waiting:
            second.client.post(f"/queue/{job.id}/stop")
        answer = second.client.post("/runs/digits-two/stop")
        assert "stopping" in answer.text
        until(lambda: not queue.active(), "the training stops")
        assert queue.job(running.id).state == "stopped"
        assert events(run)[-1] == "stopped"
        page = second.client.get("/runs/digits-two").text
        assert "Traceback" not in page
        if "score" in events(run):
            assert (run / "model.safetensors").is_file()


def test_events_continue_behind_the_last_one(folder):
    """A page that lost its connection gets what it missed, once; the stream ends with the training."""
    with studio(folder) as opened:
        short = {**LONG, "epochs": "3"}
        opened.client.post("/data/digits two/train", data=short)
        ids, points = [], 0
        with opened.client.stream("GET", "/runs/digits-two/events", timeout=LIMIT) as stream:
            for line in stream.iter_lines():
                if line.startswith("id:"):
                    ids.append(int(line[3:]))
                elif line.startswith("data:"):
                    points += len(json.loads(line[5:])["score"])
        assert ids == sorted(ids)
        assert points == 3
        headers = {"Last-Event-ID": str(ids[-1])}
        with opened.client.stream("GET", "/runs/digits-two/events", headers=headers) as stream:
            again = [json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:")]
        assert [one["score"] for one in again] == [[]]
        assert "right" in opened.client.get("/runs/digits-two").text
        assert opened.client.get("/runs/digits-two/live.png").headers["content-type"] == "image/png"


def test_the_first_page_needs_no_heavy_library():
    """Complaint 13 and the first second: what costs the time is what is imported."""
    script = (
        "import sys, vitrail.studio.serve\n"
        "print([m for m in ('torch', 'scipy', 'sklearn', 'matplotlib', 'timm', 'polars') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


def test_without_the_extra_one_sentence_says_what_to_do(tmp_path):
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError('no fastapi', name='fastapi')")
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError('no uvicorn', name='uvicorn')")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from vitrail.cli.main import main; main(['studio'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install 'vitrail[studio]'" in done.stderr
    assert "Traceback" not in done.stderr


def _made(folder: Path) -> Workspace:
    workspace = Workspace(folder)
    workspace.make()
    return workspace
