"""A server in a process of its own on one core, and the generator of `bench.open_loop` on another."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

SERVER_CORE, OWN_CORE = 0, 1
START = 300
"""Seconds that a server may take until it is ready."""


class Served(NamedTuple):
    """A server that is ready: `ask` is where it takes images."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def ask(self) -> str:
        return f"{self.url}/predict"

    def seconds(self) -> float:
        """Return the processor time of all its processes."""
        with suppress(psutil.Error):
            own = psutil.Process(self.process.pid)
            times = [one.cpu_times() for one in (own, *own.children(recursive=True))]
            return sum(one.user + one.system for one in times)
        return float("nan")


@contextmanager
def served(
    words: Sequence[str], ready: str, environment: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """Start a server (`words` with `{port}`), wait until it answers at the path `ready`, and end it afterwards."""
    port = _free_port()
    command = [word.replace("{port}", str(port)) for word in words]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**_environment(), **(environment or {})},
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}), start_new_session=True,
        )  # fmt: skip
        one = Served(f"http://127.0.0.1:{port}", process)
        try:
            _wait(one, ready, log)
            yield one
        finally:
            _end(process)


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait(one: Served, ready: str, log: Any) -> None:
    until = time.monotonic() + START
    while time.monotonic() < until and one.process.poll() is None:
        with suppress(OSError, http.client.HTTPException):
            if got(one.url, ready)[0] == 200:
                return
        time.sleep(0.2)
    log.seek(0)
    tail = log.read().decode("utf-8", "replace")[-3000:]
    raise SystemExit(f"{' '.join(map(str, one.process.args))} was not ready:\n{tail}")  # type: ignore[arg-type]


def got(url: str, path: str) -> tuple[int, bytes]:
    """Return status and body of a GET request."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server, and what it leaves of its own session."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def generated(
    one: Served, images: Path, words: Sequence[str], meanwhile: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Run the generator on its own core and return its numbers, with the server's share of a core."""
    command = [sys.executable, "-m", "bench.open_loop", one.ask, str(images), *words]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        env=_environment(),
        preexec_fn=lambda: os.sched_setaffinity(0, {OWN_CORE}),
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        began, used = time.monotonic(), one.seconds()
        if meanwhile:
            meanwhile()
        line = process.stdout.readline()
        share = (one.seconds() - used) / (time.monotonic() - began)
    if not line:
        raise SystemExit(f"The generator failed: {' '.join(command)}")
    return {**json.loads(line), "server_cpu": share}


@contextmanager
def another_program() -> Iterator[None]:
    """Keep the server's core busy with a program that does nothing else."""
    spinning = subprocess.Popen(
        [sys.executable, "-c", "while True: pass"],
        preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
    )
    try:
        yield
    finally:
        spinning.kill()
        spinning.wait()
