"""Where a server listens, and who may use it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

import psutil
import pytest

from vitrail.core.access import host_of, new_token, same
from vitrail.core.errors import RunError
from vitrail.core.ports import listen, machine_names


def test_the_first_free_port_is_taken():
    with listen("127.0.0.1", (0,)) as first:
        first.listen()
        taken = first.getsockname()[1]
        with listen("127.0.0.1", (taken, 0)) as second:
            assert second.getsockname()[1] not in (0, taken)


def test_a_taken_port_is_named_with_its_holder_and_the_way_out():
    with listen("127.0.0.1", (0,)) as first:
        first.listen()
        taken = first.getsockname()[1]
        holder = rf" {psutil.Process().name()} \(process {os.getpid()}\) holds it\."
        with pytest.raises(RunError, match=rf"^Port {taken} on 127\.0\.0\.1 is not free .*{holder} Wait\.$"):
            listen("127.0.0.1", (taken,), "Wait.")


def test_a_host_of_another_machine_is_refused():
    with pytest.raises(RunError, match=r"^Port 0 on 192\.0\.2\.1 is not free"):
        listen("192.0.2.1", (0,))


def test_a_machine_has_its_name_and_its_addresses():
    assert {socket.gethostname(), "127.0.0.1"} <= set(machine_names())


def test_the_host_is_told_without_its_port():
    headers = ("localhost:8000", "localhost", "[::1]:8000", "[::1]", "")
    assert [host_of(one) for one in headers] == ["localhost", "localhost", "[::1]", "[::1]", ""]


def test_tokens_differ_and_are_compared_as_text():
    token = new_token()
    assert len(token) >= 32
    assert token != new_token()
    assert same(token, token)
    assert not same("é", token)


def test_neither_needs_a_heavy_library():
    script = (
        "import sys, vitrail.core.ports, vitrail.core.access\n"
        "print([m for m in ('torch', 'numpy', 'psutil') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


def test_small_parts_of_an_answer_are_sent_at_once():
    """Without TCP_NODELAY the body of an answer waits 40 ms until its head is confirmed."""

    async def option() -> int:
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def came(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            told.set_result(
                writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            )
            writer.close()

        listener = listen("127.0.0.1", [0])
        server = await asyncio.start_server(came, sock=listener)
        async with server:
            _, writer = await asyncio.open_connection(*listener.getsockname())
            found = await told
            writer.close()
        return found

    assert asyncio.run(option()) == 1
