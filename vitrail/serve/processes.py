"""Worker processes as the front of a server sees them: started, asked, and started again when one ends."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from logging import getLogger
from multiprocessing import resource_tracker
from typing import Any

from vitrail.core.errors import RunError
from vitrail.serve.messages import Facts, Failed, Model, Ready
from vitrail.serve.worker import explain_requests, work

PATIENCE = 3.0
"""Seconds that a worker gets to end by itself."""

PAUSES = (0.0, 0.5, 2.0, 10.0)
"""Seconds before a worker that ended is started again, the last one from then on; each answered batch resets them."""


class WorkerGone(Exception):
    """A worker ended, or was stopped, while it computed."""


class WorkerProcess:
    """One process and its connection; one message at a time."""

    def __init__(self, target: Callable[..., None], *words: Any) -> None:
        self._target, self._words = target, words
        self._thread = ThreadPoolExecutor(1, "worker")
        self._process: Any = None
        self._connection: Any = None
        self._ended = False
        self.free_at = 0.0

    async def start(self) -> Facts | None:
        """Start the process and wait until it has opened its model; if that is cancelled, the process ends at once.

        Raises:
            RunError: the model cannot be opened.
            WorkerGone: the process ended.
        """
        try:
            first = await self._in_thread(self._started)
        except asyncio.CancelledError:
            self.kill()
            raise
        if isinstance(first, Failed):
            raise RunError(first.why)
        assert isinstance(first, Ready), f"a worker began with {first!r}"
        return first.facts

    async def ask(self, message: Any, limit: float) -> Any:
        """Return the answer to a message; a worker that takes more than `limit` seconds is stopped.

        Raises:
            WorkerGone: it ended, or was stopped.
        """
        asked = self._in_thread(self._asked, message)
        try:
            return await asyncio.wait_for(asyncio.shield(asked), limit)
        except TimeoutError:
            self.kill()
            with suppress(WorkerGone):
                await asked
            raise WorkerGone from None

    @property
    def number(self) -> int:
        """The process id."""
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and bool(self._process.is_alive())

    def kill(self) -> None:
        """End the process at once, also one that is just being started."""
        self._ended = True
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process: by itself, or at once if it does not."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.join(PATIENCE)
            self._process.kill()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _in_thread(self, function: Callable[..., Any], *words: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *words)

    def _started(self) -> Any:
        spawn = multiprocessing.get_context("spawn")  # a fork would copy threads that hold locks
        _block_signals()
        self._connection, theirs = spawn.Pipe()
        model, *words = self._words
        self._process = spawn.Process(target=self._target, args=(model, theirs, *words), daemon=True)
        self._process.start()
        theirs.close()
        if self._ended:
            self._process.kill()
        return self._received()

    def _asked(self, message: Any) -> Any:
        try:
            self._connection.send(message)
        except OSError as error:
            raise WorkerGone from error
        return self._received()

    def _received(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerGone from error


def _block_signals() -> None:
    """Keep Ctrl-C and SIGTERM, which a terminal sends to all processes, from a process that this thread starts.

    A process has the blocked signals of the thread that starts it; it ignores them (`work`), but only once Python runs.
    """
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # it unblocks them in the thread that starts it
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))


class Team:
    """The workers of a server: those that are free, and those that are being started again.

    `changed` is called whenever a worker becomes free or is lost.
    """

    def __init__(self, model: Model, count: int, changed: Callable[[], None]) -> None:
        self.model, self.count, self.changed = model, count, changed
        self.free: list[WorkerProcess] = []
        self.busy: list[WorkerProcess] = []
        self.restarts = 0
        self._failures, self._starting = 0, set[asyncio.Task[None]]()
        self._closed = False

    async def start(self) -> Facts:
        """Start the first worker, which measures the model, and then the others."""
        first = WorkerProcess(work, self.model, True)
        try:
            facts = await first.start()
        except WorkerGone as error:
            raise RunError(
                "The worker ended while it opened the model; the system may have ended it to free memory."
            ) from error
        assert facts is not None, "the first worker measures"
        self.model = replace(self.model, backends={one.name: one.plan for one in facts.points})
        self.free.append(first)
        for _ in range(self.count - 1):
            self._start_another()
        return facts

    @property
    def alive(self) -> int:
        """How many workers can compute."""
        return len(self.free) + len(self.busy)

    def take(self) -> WorkerProcess:
        """Take a free worker."""
        worker = self.free.pop(0)
        self.busy.append(worker)
        return worker

    def give(self, worker: WorkerProcess) -> None:
        """Return a worker that has answered."""
        self._failures = 0
        self.busy.remove(worker)
        self.free.append(worker)
        self.changed()

    def lost(self, worker: WorkerProcess) -> None:
        """Replace a worker that ended."""
        self.busy.remove(worker)
        worker.kill()
        worker.close()
        self.restarts += 1
        getLogger(__name__).warning("A worker (process %d) ended; another one is started.", worker.number)
        self._start_another()
        self.changed()

    def free_at(self, now: float) -> list[float]:
        """Return when each worker is free, in seconds of the clock."""
        return [*(now for _ in self.free), *(max(now, one.free_at) for one in self.busy)]

    def watch(self) -> None:
        """Replace free workers that ended: nobody would notice before the next batch."""
        for worker in [one for one in self.free if not one.alive]:
            self.free.remove(worker)
            self.busy.append(worker)
            self.lost(worker)

    async def close(self) -> None:
        """End all workers."""
        self._closed = True
        for task in tuple(self._starting):
            task.cancel()
        await asyncio.gather(*(asyncio.to_thread(one.close) for one in (*self.free, *self.busy)))

    def _start_another(self, failed: int = 0) -> None:
        """Start a worker, after `failed` tries that came to nothing: others that answer say nothing about those."""
        if not self._closed:
            task = asyncio.create_task(self._another(failed))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _another(self, failed: int) -> None:
        await asyncio.sleep(PAUSES[min(max(failed, self._failures), len(PAUSES) - 1)])
        self._failures += 1
        worker = WorkerProcess(work, self.model, False)
        began = time.monotonic()
        try:
            await worker.start()
        except (WorkerGone, RunError) as error:
            worker.kill()
            why = str(error) or f"it ended after {time.monotonic() - began:.0f} s"
            getLogger(__name__).warning("A worker could not be started (%s); another try follows.", why)
            self._start_another(failed + 1)
            return
        self.free.append(worker)
        self.changed()


class Explainers:
    """The process that explains, started with the first question; questions wait in line, and only a few."""

    MOST = 4

    def __init__(self, model: Model) -> None:
        self.model, self.waiting = model, 0
        self._worker: WorkerProcess | None = None
        self._turn = asyncio.Lock()

    async def ask(self, question: Any, limit: float) -> Any:
        """Return the explanation.

        Raises:
            WorkerGone: the process ended.
            RunError: the model cannot be opened.
        """
        self.waiting += 1
        try:
            async with self._turn:
                if self._worker is None:
                    worker = WorkerProcess(explain_requests, self.model)
                    await worker.start()
                    self._worker = worker
                try:
                    return await self._worker.ask(question, limit)
                except WorkerGone:
                    self._worker.close()
                    self._worker = None
                    raise
        finally:
            self.waiting -= 1

    async def answered(self) -> None:
        """Wait until no question is left."""
        while self.waiting:
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            await asyncio.to_thread(self._worker.close)
