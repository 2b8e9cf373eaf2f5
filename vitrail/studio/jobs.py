"""The queue: trainings as child processes that outlive the studio, one at a time.

A job is a row in the database. Its process is known by its number and start time, so that a studio that was killed and
started again adopts a training that still runs. What a training does is read from its run folder, never from its
process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Literal

import psutil

from vitrail.core.errors import RunError
from vitrail.studio.database import Database
from vitrail.studio.events import last_events
from vitrail.studio.output import last_words, unwatched_end
from vitrail.studio.processes import running
from vitrail.studio.watched import watched
from vitrail.studio.workspace import Workspace

State = Literal["queued", "running", "done", "failed", "stopped"]

PAUSE = 0.25
"""Seconds between two looks at the queue."""

PATIENCE = 20.0
"""Seconds after which a training that was asked to stop, and still runs, is ended; its best weights are on disk."""

LAST_PATIENCE = 600.0
"""The same, while such a training writes the report of its best weights."""


@dataclass(frozen=True)
class Job:
    """A job: the words after `vitrail`, the run it writes, and how far it is."""

    id: int
    dataset: str
    words: tuple[str, ...]
    title: str
    run: str
    revision: int
    state: State
    queued: float
    pid: int | None
    started: float | None
    ended: float | None
    error: str
    after: int | None

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("queued", "running")

    @property
    def source(self) -> str:
        """The data set that the command names; empty where it continues a run."""
        first = self.words[1] if len(self.words) > 1 else ""
        return "" if first.startswith("-") else first


class Queue:
    """The jobs of a studio. `start` runs them one after another in a thread; `stop` leaves a running one alone."""

    def __init__(self, workspace: Workspace, database: Database) -> None:
        self.workspace, self.database = workspace, database
        self.naming = threading.RLock()  # held from the choice of a free name until its job is queued
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._stopping: dict[int, float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="vitrail-queue", daemon=True)

    def start(self) -> None:
        """Begin to work on the queue."""
        self._thread.start()

    def close(self) -> None:
        """End the work on the queue. A running training goes on, and the next studio adopts it."""
        self._end.set()
        self._thread.join()

    def add(
        self,
        dataset: str,
        words: Sequence[str],
        title: str,
        run: str,
        revision: int = 0,
        *,
        after: int | None = None,
    ) -> int:
        """Queue a job and return its number; it is not begun if the job `after` which it comes fails."""
        with self.database.transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO jobs (dataset, words, title, run, revision, state, queued, after) "
                "VALUES (?,?,?,?,?,'queued',?,?)",
                (dataset, json.dumps(list(words)), title, run, revision, time.time(), after),
            )
            assert cursor.lastrowid is not None, "an inserted row has a number"
            return cursor.lastrowid

    def jobs(self, limit: int = 200) -> list[Job]:
        """Return the jobs, the newest first."""
        with self.database.transaction() as connection:
            rows = connection.execute("SELECT * FROM jobs ORDER BY id DESC LIMIT ?", (limit,)).fetchall()
        return [_job(row) for row in rows]

    def job(self, number: int) -> Job:
        """Return a job. RunError if there is none with this number."""
        with self.database.transaction() as connection:
            row = connection.execute("SELECT * FROM jobs WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise RunError(f"There is no job {number}.")
        return _job(row)

    def active(self) -> list[Job]:
        """Return the jobs that run or wait, in the order in which they are done."""
        with self.database.transaction() as connection:
            rows = connection.execute(
                "SELECT * FROM jobs WHERE state IN ('queued', 'running') ORDER BY id"
            ).fetchall()
        return [_job(row) for row in rows]

    def of_run(self, run: str) -> Job | None:
        """Return the newest job that writes or continues a run."""
        return self.of_runs().get(run)

    def of_runs(self) -> dict[str, Job]:
        """Return the newest job of each run."""
        with self.database.transaction() as connection:
            rows = connection.execute(
                "SELECT * FROM jobs WHERE id IN (SELECT max(id) FROM jobs GROUP BY run)"
            ).fetchall()
        return {job.run: job for job in map(_job, rows)}

    def cancel(self, number: int) -> None:
        """Take a job out of the queue, or ask its training to stop: it keeps the best weights and can be resumed."""
        job = self.job(number)
        if job.state == "queued" and self._end_job(number, "stopped", only="queued"):
            return
        job = self.job(number)
        process = running(job.pid, job.started)
        if process is not None and number not in self._stopping:
            self._stopping[number] = time.monotonic()
            process.send_signal(signal.SIGINT)

    def stopping(self, number: int) -> bool:
        """Whether a job was asked to stop and still runs."""
        return number in self._stopping

    def log(self, number: int) -> Path:
        """Return the file with the output of a job."""
        return self.workspace.logs / f"{number}.log"

    def _work(self) -> None:
        while not self._end.is_set():
            try:
                self._turn()
            except RunError as error:  # such as a full disk: the queue goes on as soon as there is room
                getLogger("vitrail").warning("The queue waits: %s", error)
                self._end.wait(10 * PAUSE)
            self._end.wait(PAUSE)

    def _turn(self) -> None:
        """Look at the job that runs, or begin the next one."""
        active = self.active()
        if self._stops_taken_out({job.id for job in active}):
            return
        running = [job for job in active if job.state == "running"]
        for job in running:
            self._look(job)
        if active and not running:
            self._begin(active[0])

    def _begin(self, job: Job) -> None:
        """Start the process of a job, with a session of its own: Ctrl-C in the studio's terminal does not reach it."""
        if job.after is not None and self.job(job.after).state == "failed":
            self._end_job(job.id, "stopped", "Not begun, because the job before it failed.")
            return
        try:
            # Its process runs already if the disk was full when that was to be written.
            child = self._children.get(job.id) or self._process(job)
        except OSError as error:
            self._end_job(job.id, "failed", f"The training could not be started: {error.strerror}.")
            return
        self._children[job.id] = child
        with self.database.transaction() as connection:
            connection.execute(
                "UPDATE jobs SET state = 'running', pid = ?, started = ? WHERE id = ? AND state = 'queued'",
                (child.pid, psutil.Process(child.pid).create_time(), job.id),
            )

    def _process(self, job: Job) -> subprocess.Popen[bytes]:
        words = watched(self.workspace.connections, job.words)
        with self.log(job.id).open("wb") as log:
            return subprocess.Popen(
                words, cwd=self.workspace.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _stops_taken_out(self, active: set[int]) -> bool:
        """Stop a process whose job was taken out of the queue before its start was written; False if none runs."""
        for number in self._children.keys() - active:
            child = self._children[number]
            if child.poll() is not None:
                self._forget(number)
                continue
            if number not in self._stopping:
                self._stopping[number] = time.monotonic()
                child.send_signal(signal.SIGINT)
            elif time.monotonic() - self._stopping[number] > PATIENCE:
                os.killpg(child.pid, signal.SIGKILL)
            return True
        return False

    def _look(self, job: Job) -> None:
        """Note that a job has ended, or end one that does not stop."""
        child = self._children.get(job.id)
        code = child.poll() if child is not None else None
        process = running(job.pid, job.started)
        if code is None and (child or process):
            asked = self._stopping.get(job.id)
            waited = 0.0 if asked is None else time.monotonic() - asked
            if waited > PATIENCE and not (waited < LAST_PATIENCE and self._writes_report(job)) and process:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            return
        if job.id in self._stopping:
            self._end_job(job.id, "stopped")
        elif code is not None or not self._begin_again(job):
            done = self._reported(job) if code is None else code == 0
            self._end_job(job.id, "done" if done else "failed", "" if done else self._why(job, code))
        self._forget(job.id)  # now that it is written: on a full disk it is tried again

    def _forget(self, number: int) -> None:
        self._children.pop(number, None)
        self._stopping.pop(number, None)

    def _why(self, job: Job, code: int | None) -> str:
        """Return why a job failed; without a code nobody watched its end."""
        saved = (self.workspace.runs / job.run / "state" / "last.safetensors").is_file()
        if code is not None or saved:
            return last_words(self.log(job.id))
        return unwatched_end(self.log(job.id))

    def _reported(self, job: Job) -> bool:
        return (self.workspace.runs / job.run / "report.json").is_file()

    def _writes_report(self, job: Job) -> bool:
        """Whether a training has ended and saved its state, and only writes its report."""
        events = list(last_events(self.workspace.runs / job.run / "history.jsonl"))
        return bool(events) and events[-1]["event"] in ("stopped", "finished")

    def _begin_again(self, job: Job) -> bool:
        """Queue a job again that ended while no studio watched (a reboot); False if it is done, or cannot go on."""
        folder = self.workspace.runs / job.run
        ended = list(last_events(folder / "history.jsonl"))[-1:]
        if ended and ended[0]["event"] in ("stopped", "finished", "drafted"):
            return False
        if (folder / "state" / "last.safetensors").is_file():
            words: Sequence[str] = (
                job.words if "--resume" in job.words else ("train", "--resume", f"runs/{job.run}")
            )
        elif folder.exists():
            return False
        else:
            words = job.words
        with self.database.transaction() as connection:
            connection.execute(
                "UPDATE jobs SET state = 'queued', pid = NULL, started = NULL, words = ? WHERE id = ?",
                (json.dumps(list(words)), job.id),
            )
        return True

    def _end_job(self, number: int, state: State, error: str = "", only: State | None = None) -> bool:
        """Write how a job ended; with `only`, if it still is in that state. Return whether something was written."""
        with self.database.transaction() as connection:
            cursor = connection.execute(
                "UPDATE jobs SET state = ?, ended = ?, error = ? WHERE id = ? AND (? IS NULL OR state = ?)",
                (state, time.time(), error, number, only, only),
            )
            return cursor.rowcount > 0


def _job(row: object) -> Job:
    values = dict(row)  # type: ignore[call-overload]
    return Job(**{**values, "words": tuple(json.loads(values["words"]))})
