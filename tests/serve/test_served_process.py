"""`vitrail serve` as a process: workers that are killed, its end under load and while it opens, ports and tokens."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import httpx
import psutil
import pytest
from pretended import until

from vitrail.cli.main import run


class Process:
    """A server in a process group of its own, and a client of it."""

    def __init__(self, *words: object, **environment: str) -> None:
        command = [sys.executable, "-m", "vitrail", "serve", *map(str, words), "--json"]
        self.process = subprocess.Popen(
            [*command] if "--port" in words else [*command, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **environment},
        )
        self.told: dict[str, str] = {}
        self.client: httpx.Client = httpx.Client(trust_env=False, timeout=40)

    def listening(self) -> Process:
        """Wait until it has told its address."""
        lines = list(iter(self._line, "}\n"))
        self.told = json.loads("".join([*lines, "}"]))
        port = self.told["link"].rstrip("/").rpartition(":")[2]
        self.client.base_url = httpx.URL(f"http://127.0.0.1:{port}")
        return self

    def _line(self) -> str:
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return line

    def workers(self) -> list[psutil.Process]:
        """Return the processes that hold the model."""
        children = psutil.Process(self.process.pid).children()
        return [one for one in children if "spawn_main" in " ".join(one.cmdline())]

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return next((float(one.rpartition(" ")[2]) for one in lines if one.startswith(f"{name} ")), 0.0)

    def ended(self, seconds: float = 30) -> tuple[int, str]:
        """Return the exit code and standard error, when it ends."""
        _, told = self.process.communicate(timeout=seconds)
        return self.process.returncode, told


@contextmanager
def serving(*words: object, **environment: str) -> Iterator[Process]:
    server = Process(*words, **environment)
    try:
        yield server
    finally:
        server.client.close()
        if server.process.poll() is None:
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.communicate()


class Load:
    """Clients that send one request after the other until they are told to stop."""

    def __init__(self, server: Process, data: bytes, clients: int = 3) -> None:
        self.codes: list[int] = []
        self.lost: list[str] = []
        self.going = True
        self._server, self._data = server, data
        self._threads = [threading.Thread(target=self._send) for _ in range(clients)]
        for one in self._threads:
            one.start()

    def _send(self) -> None:
        with httpx.Client(base_url=self._server.client.base_url, trust_env=False, timeout=40) as client:
            client.headers.update(self._server.client.headers)
            while self.going:
                try:
                    self.codes.append(client.post("/predict", content=self._data).status_code)
                except httpx.ConnectError:
                    return  # it has ended
                except httpx.HTTPError as error:
                    self.lost.append(type(error).__name__)

    def stop(self) -> None:
        self.going = False
        for one in self._threads:
            one.join()


def test_killed_workers_are_started_again_and_the_others_answer_everything(toy, pictures, tmp_path):
    token = tmp_path / "token"
    token.write_text("sesame\n")
    data = pictures[0].read_bytes()
    with serving(toy("classify"), "--exact", "--workers", 2, "--token-file", token) as server:
        server.listening()
        assert "token" not in server.told  # only one that was made is told
        assert server.client.post("/predict", content=data).status_code == 401
        server.client.headers["authorization"] = "Bearer sesame"
        until(lambda: server.metric("vitrail_workers") == 2, 40)
        load = Load(server, data)
        until(lambda: len(load.codes) > 10)
        server.workers()[0].kill()
        until(lambda: server.metric("vitrail_worker_restarts") == 1)
        until(lambda: server.metric("vitrail_workers") == 2, 40)
        load.stop()
        assert set(load.codes) == {200}
        assert not load.lost
        for one in server.workers():
            one.kill()
        until(lambda: server.client.get("/health/ready").status_code == 503)
        answer = server.client.post("/predict", content=data)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert server.client.get("/health/live").status_code == 200
        until(lambda: server.client.post("/predict", content=data).status_code == 200, 40)


def test_told_to_end_under_load_it_answers_what_it_accepted(dialled, pictures):
    data = pictures[0].read_bytes()
    with serving(dialled, "--latency", "3s", VITRAIL_TOKEN="word") as server:
        server.listening()
        assert "token" not in server.told
        server.client.headers["authorization"] = "Bearer word"
        times = [server.client.post("/predict", content=data).json()["total_ms"] for _ in range(10)]
        assert times[0] < 10 * median(times[1:]) + 100  # nothing is left to warm up
        load = Load(server, data)
        until(lambda: len(load.codes) > 20)
        assert set(load.codes) == {200}
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.client.get("/health/ready").status_code == 503)
        assert server.client.get("/health/live").status_code == 200
        code, told = server.ended()
        load.stop()
        assert code == 0
        assert "Traceback" not in told
        assert set(load.codes) == {200, 503}
        assert load.codes.index(503) > 20
        assert set(load.lost) <= {"RemoteProtocolError", "ReadError"}
        assert len(load.lost) <= 3  # connections that were idle at the end: nothing of them was accepted


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_while_the_model_opens_it_ends_at_once(toy, sign):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(toy("classify"), "--port", port) as server:
        server.client.base_url = httpx.URL(f"http://127.0.0.1:{port}")

        def answers() -> bool:
            try:
                return server.client.get("/health/live").status_code == 200
            except httpx.HTTPError:
                return False

        until(answers, 40)
        assert server.client.get("/health/started").status_code == 503
        os.killpg(server.process.pid, sign)  # as a terminal sends Ctrl-C: to all of its processes
        code, told = server.ended()
        assert code == 0
        assert "Traceback" not in told


def test_with_other_hosts_a_token_is_made_and_told_and_ctrl_c_ends_it(toy, pictures):
    with serving(toy("classify"), "--host", "0.0.0.0") as server:
        server.listening()
        assert len(server.told["token"]) > 20
        assert server.client.get("/card").status_code == 401
        assert server.client.get("/health/ready").status_code == 200
        server.client.headers["authorization"] = f"Bearer {server.told['token']}"
        assert server.client.get("/card").json()["promise_ms"] is None
        explained = server.client.post("/explain", content=pictures[0].read_bytes())
        assert explained.status_code == 200
        assert explained.json()["png"]
        os.killpg(server.process.pid, signal.SIGINT)
        code, told = server.ended()
        assert code == 0
        assert "Traceback" not in told
        assert "nothing quicker than float32" in told  # its images are not here


def test_a_model_that_cannot_be_opened_ends_the_server_with_the_sentence(tmp_path, toy):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(toy("classify").read_bytes()[:5000])
    with serving(broken) as server:
        code, told = server.ended(60)
        assert code == 1
        assert "broken.safetensors" in told
        assert "Traceback" not in told


def test_a_port_that_is_taken_names_who_holds_it(toy, capsys):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert run(["serve", str(toy("classify")), "--port", str(port)]) == 1
    told = capsys.readouterr().err
    assert f"Port {port} on 127.0.0.1 is not free" in told
    assert f"(process {os.getpid()}) holds it" in told
    assert "--port" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--latency", "fast"], "latency"),
        (["--workers", "0"], "--workers"),
        (["--batch", "-1"], "--batch"),
        (["--max-seconds", "0"], "--max-seconds"),
        (["--token-file", "nowhere.txt"], "nowhere.txt"),
        (["--token-file", os.devnull], "empty"),
    ],
)
def test_options_that_make_no_sense_are_refused(toy, capsys, words, said):
    assert run(["serve", str(toy("classify")), *words]) in (1, 2)
    assert said in capsys.readouterr().err


def test_a_model_that_is_not_there_is_refused_before_anything_is_started(capsys):
    assert run(["serve", "runs/nowhere"]) in (1, 2)
    assert "runs/nowhere" in capsys.readouterr().err


def test_the_help_names_what_one_needs(capsys):
    assert run(["serve", "--help"]) == 0
    told = capsys.readouterr().out
    for word in ("--latency", "--workers", "--token-file", "--allow-urls", "--dockerfile", "curl -T cat.jpg"):
        assert word in told


def test_the_dockerfile_is_printed(toy, capsys):
    path = toy("classify")
    assert run(["serve", str(path), "--latency", "80ms", "--dockerfile"]) == 0
    told = capsys.readouterr().out
    assert "FROM python" in told
    assert '"--latency", "80ms"' in told
    assert path.name in told
