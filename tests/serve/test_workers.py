"""The workers of a server that cannot be started, that say nothing for too long, and that are not needed any more."""

from __future__ import annotations

import asyncio
import time

import pytest

from vitrail.core.errors import RunError
from vitrail.serve import processes
from vitrail.serve.messages import Failed, Model, Ready
from vitrail.serve.processes import Explainers, Team, WorkerGone, WorkerProcess


def echo(model, connection, *words):
    """A worker that answers what it is told: a number of seconds to wait, or to end."""
    connection.send(Ready() if model.path != "nothing" else Failed("There is nothing."))
    while True:
        try:
            wait = connection.recv()
        except EOFError:
            return
        if wait < 0:
            return
        time.sleep(wait)
        connection.send(wait)


def silent(model, connection, *words):
    """A worker that never opens its model."""
    time.sleep(60)


def run(what):
    return asyncio.run(asyncio.wait_for(what, 60))


def test_a_worker_answers_ends_and_is_stopped_when_it_takes_too_long():
    async def walk():
        worker = WorkerProcess(echo, Model("toy"))
        await worker.start()
        assert worker.alive
        assert await worker.ask(0, 10) == 0
        with pytest.raises(WorkerGone):
            await worker.ask(30, 0.2)
        worker.close()
        assert not worker.alive
        other = WorkerProcess(echo, Model("toy"))
        await other.start()
        with pytest.raises(WorkerGone):
            await other.ask(-1, 10)
        other.close()

    run(walk())


def test_a_model_that_cannot_be_opened_is_said():
    async def walk():
        worker = WorkerProcess(echo, Model("nothing"))
        with pytest.raises(RunError, match="There is nothing"):
            await worker.start()
        worker.close()

    run(walk())


def test_a_start_that_is_cancelled_ends_the_process():
    async def walk():
        worker = WorkerProcess(silent, Model("toy"))
        starting = asyncio.create_task(worker.start())
        while not worker.alive:
            await asyncio.sleep(0.01)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        worker.close()
        assert not worker.alive

    run(walk())


class Broken(WorkerProcess):
    """A worker that cannot be started."""

    starts = 0

    async def start(self):
        Broken.starts += 1
        raise WorkerGone


def test_a_worker_that_cannot_be_started_is_tried_less_often_also_while_others_answer(monkeypatch):
    monkeypatch.setattr(processes, "WorkerProcess", Broken)
    monkeypatch.setattr(processes, "PAUSES", (0.0, 0.01, 0.02, 30.0))

    async def walk():
        team = Team(Model("toy"), 2, lambda: None)
        team.free = [Broken(echo, Model("toy")), Broken(echo, Model("toy"))]
        team.lost(team.take())
        other = team.take()
        for _ in range(30):
            team.give(other)
            team.take()
            await asyncio.sleep(0.01)
        assert Broken.starts == 3
        assert team.restarts == 1
        await team.close()

    run(walk())


def test_explanations_wait_in_line_and_the_process_is_started_again(monkeypatch):
    monkeypatch.setattr(processes, "explain_requests", echo)

    async def walk():
        explainers = Explainers(Model("toy"))
        assert await asyncio.gather(*(explainers.ask(0.01, 10) for _ in range(3))) == [0.01] * 3
        with pytest.raises(WorkerGone):
            await explainers.ask(-1, 10)
        assert await explainers.ask(0, 10) == 0
        await explainers.answered()
        await explainers.close()

    run(walk())
