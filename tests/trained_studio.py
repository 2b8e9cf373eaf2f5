"""A studio with a finished run on a few digits, trained once, and a client that holds its key."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RUN = "few"
TOKEN = "a-token-of-the-tests"


def trained_workspace(folder: Path, digits: Path) -> Path:
    """Train in a new workspace, as the studio does: the command line, with the workspace as its folder."""
    (folder / "data").mkdir()
    digits.rename(folder / "data" / RUN)
    words = ["--model", "vit_digits", "--weights", "none", "--epochs", "2", "--batch", "16", "--micro", "16"]
    command = [sys.executable, "-m", "vitrail", "train", f"data/{RUN}", *words, "--precision", "float32"]
    done = subprocess.run([*command, "--out", f"runs/{RUN}"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def ended(client: Any, address: str) -> str:
    """Return the page of a command beside the queue when the command has ended."""
    for _ in range(1200):
        page: str = client.get(address, headers={"hx-request": "true"}).text
        if "hx-trigger" not in page:
            return page
        time.sleep(0.1)
    raise AssertionError("the command did not end")
