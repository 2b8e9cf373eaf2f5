"""Commands beside the queue, for which a user waits: exports, tables of answers, uploads.

Each is a folder with its words, its output and the files it writes, and a child process that outlives the studio. What
it does is read from the folder, so that it is still there after a restart.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import psutil

from vitrail.core.environment import with_variables
from vitrail.core.errors import RunError
from vitrail.core.files import write_json, write_text
from vitrail.studio.output import says
from vitrail.studio.processes import running
from vitrail.studio.watched import watched
from vitrail.studio.workspace import Workspace

State = Literal["running", "done", "failed", "stopped"]

MOST_RUNNING = 3
"""Largest number of commands at once: each may load a network."""

WRITING = 15
"""Looks, each 20 ms apart, for the exit code of a command that has ended."""

SETTLING = 3.0
"""Seconds after the last output in which a command without an exit code still counts as running."""

KEPT = 60
"""Number of ended commands that are kept with their files."""

NUMBER = re.compile(r"[0-9a-f]{16}")

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Wish:
    """What to run: the words after `vitrail`, a title for people, and the run it is about."""

    words: Sequence[str]
    title: str
    run: str
    kind: str


@dataclass(frozen=True)
class BackgroundCommand:
    """A command that was started, by its folder."""

    folder: Path
    title: str
    run: str
    kind: str
    begun: float
    pid: int
    started: float

    @property
    def id(self) -> str:
        """The number of the command: the name of its folder."""
        return self.folder.name

    @property
    def state(self) -> State:
        """What it does; a command that nobody waited for is done if it wrote something."""
        code = self.folder / "code"
        if not code.is_file():
            if running(self.pid, self.started) is not None or self._just_ended():
                return "running"
            if not _appears(code):
                return "done" if self.files() else "failed"
        word = code.read_text(encoding="utf-8")
        return "done" if word == "0" else "stopped" if word == "stopped" else "failed"

    def _just_ended(self) -> bool:
        """Whether it printed something a moment ago: then its exit code is about to be written."""
        last = max(
            (
                file.stat().st_mtime
                for file in (self.folder / "log", self.folder / "answer")
                if file.is_file()
            ),
            default=0.0,
        )
        return time.time() - last < SETTLING

    @property
    def line(self) -> str:
        """The last line that it printed for people: what it does, or why it failed."""
        return says(self.folder / "log")

    @property
    def lines(self) -> list[str]:
        """All lines that it printed for people."""
        text = (self.folder / "log").read_text(encoding="utf-8", errors="replace")
        return [line for line in text.splitlines() if line.strip()]

    @property
    def answer(self) -> str:
        """What it printed for programs."""
        return (self.folder / "answer").read_text(encoding="utf-8", errors="replace")

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        code = self.folder / "code"
        return (code.stat().st_mtime if code.is_file() else time.time()) - self.begun

    def files(self) -> list[Path]:
        """Return the files that it wrote, without those still being written."""
        found = sorted(path for path in (self.folder / "out").rglob("*") if path.is_file())
        return [path for path in found if not path.name.startswith(".")]

    def stop(self) -> None:
        """End it."""
        process = running(self.pid, self.started)
        if process is not None:
            write_text(self.folder / "code", "stopped")
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


class BackgroundCommands:
    """The commands of a studio."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.folder = workspace.own / "commands"

    def new_folder(self) -> Path:
        """Return the folder of a command to come, with a place for what it reads and for what it writes."""
        self._drop_old()
        folder = self.folder / secrets.token_hex(8)
        for name in ("in", "out"):
            (folder / name).mkdir(parents=True)
        return folder

    def start(self, folder: Path, wish: Wish, environment: Mapping[str, str] = NOTHING) -> BackgroundCommand:
        """Start a command in a folder of `new_folder`. What stands in `environment` is written nowhere.

        Raises:
            RunError: too many run already, or the process cannot be started.
        """
        if sum(one.state == "running" for one in self.commands()) >= MOST_RUNNING:
            shutil.rmtree(folder)
            raise RunError(f"{MOST_RUNNING} commands run already. Wait until one of them is done.")
        words = watched(self.workspace.connections, wish.words)
        try:
            with (folder / "log").open("wb") as log, (folder / "answer").open("wb") as answer:
                child = subprocess.Popen(
                    words, cwd=self.workspace.folder, stdin=subprocess.DEVNULL, stdout=answer, stderr=log,
                    start_new_session=True, env=with_variables(environment),
                )  # fmt: skip
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise RunError(f"The command could not be started: {error.strerror}. Try again.") from error
        begun = psutil.Process(child.pid).create_time()
        command = BackgroundCommand(folder, wish.title, wish.run, wish.kind, time.time(), child.pid, begun)
        write_json(folder / "command.json", {**vars(command), "folder": folder.name})
        threading.Thread(target=_wait, args=(child, folder / "code"), daemon=True).start()
        return command

    def command(self, id: str) -> BackgroundCommand:
        """Return a command. RunError if there is none with this number."""
        folder = self.folder / id
        if not NUMBER.fullmatch(id) or not (folder / "command.json").is_file():
            raise RunError("This command is not kept any more. Start it again.")
        return _read(folder)

    def commands(self) -> list[BackgroundCommand]:
        """Return all commands, the newest first."""
        found = [_read(path.parent) for path in self.folder.glob("*/command.json")]
        return sorted(found, key=lambda one: -one.begun)

    def of_run(self, run: str, kind: str) -> list[BackgroundCommand]:
        """Return the commands of a kind about a run, the newest first."""
        return [one for one in self.commands() if (one.run, one.kind) == (run, kind)]

    def _drop_old(self) -> None:
        """Remove the oldest commands that have ended, with their files."""
        ended = [one for one in self.commands() if one.state != "running"]
        for one in ended[KEPT:]:
            shutil.rmtree(one.folder, ignore_errors=True)


def _read(folder: Path) -> BackgroundCommand:
    values = json.loads((folder / "command.json").read_text(encoding="utf-8"))
    return BackgroundCommand(**{**values, "folder": folder})


def _appears(code: Path) -> bool:
    """Return whether the exit code is written within a moment: the process has ended, and another thread writes it."""
    for _ in range(WRITING):
        if code.is_file():
            return True
        time.sleep(0.02)
    return code.is_file()


def _wait(child: subprocess.Popen[bytes], code: Path) -> None:
    """Write down how a command ended."""
    number = child.wait()
    if not code.exists() and code.parent.exists():
        with suppress(RunError):  # a full disk: the files that it wrote tell the rest
            write_text(code, str(number))
