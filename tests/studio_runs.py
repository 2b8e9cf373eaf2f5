"""Run folders as a training leaves them, without a training; and a studio in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil

RECIPE = """\
schema_version: 1
recipe: digits_vit
data: {{source: {source}}}
model: {{name: vit_digits, imgsz: [32, 32]}}
task: {{name: classify, settings: {{}}}}
training: {{tune: scratch, epochs: {epochs}}}
"""


def write_run(
    runs: Path, name: str, steps: int = 40, end: str = "", source: str = "digits", epochs: int = 8
) -> Path:
    """Write a run with `steps` steps, ten an epoch; `end` is its last event, "" while it trains."""
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(source=source, epochs=epochs))
    events: list[dict[str, Any]] = [{"event": "started", "time": 0.0, "root": "/nowhere"}]
    for step in range(1, steps + 1):
        epoch = step / 10
        events.append(
            {"event": "step", "step": step, "loss": 2 / step, "lr": 1e-3, "seconds": 0.5, "epoch": epoch}
        )
        if step % 10 == 0:
            score = 0.5 + step / 1000
            events.append({
                "event": "score", "step": step, "epoch": epoch, "accuracy": score, "loss": 1.0, "images": 100,
                "main": "accuracy", "best": score, "better": True, "seconds": step / 2, "unit": "%",
                "low": score - 0.1, "high": score + 0.1,
            })  # fmt: skip
    if end:
        events.append({"event": end, "step": steps, "total": 10 * epochs, "time": 1.0})
    (folder / "history.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    if end:
        (folder / "model.safetensors").touch()
    if end == "finished":
        test = {"accuracy": {"value": 0.82, "low": 0.79, "high": 0.85}}
        report = {"finished": True, "verdict": "82 % right (79 to 85) on images it never saw.", "test": test}
        (folder / "report.json").write_text(json.dumps(report))
    return folder


class Open(NamedTuple):
    """A studio in a process of its own, and a browser's session with it."""

    process: subprocess.Popen[str]
    link: str
    client: httpx.Client


@contextmanager
def studio(folder: Path, *words: str) -> Iterator[Open]:
    """Start `vitrail studio` in a folder and open its link; end it afterwards, also if it was killed."""
    command = [sys.executable, "-m", "vitrail", "studio", str(folder), "--no-browser", "--port", "0", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        link = process.stdout.readline().strip()
        base = link.partition("?")[0]
        with httpx.Client(base_url=base, follow_redirects=True, timeout=20) as client:
            assert client.get(link).status_code == 200
            yield Open(process, link, client)
    finally:
        process.terminate()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()


def end_trainings(folder: Path) -> None:
    """Kill the trainings that a test left in a workspace."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if process.info["cwd"] == str(folder) and "train" in words:
            process.kill()
