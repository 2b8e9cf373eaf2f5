"""Where a server of ours listens: a port of this machine, and the names under which others reach it."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress

from vitrail.core.errors import RunError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts that no other machine reaches."""

EVERYWHERE = ("0.0.0.0", "::")
"""Hosts that stand for every address of this machine."""


def listen(
    host: str, wanted: Sequence[int], way: str = "Choose another one with --port; 0 is any that is free."
) -> socket.socket:
    """Return a socket bound to the first port of `wanted` that is free; 0 is any. `way` tells users what to do else.

    Raises:
        RunError: every port is taken, or the host is not one of this machine.
    """
    for port in wanted:
        try:
            return _bound(host, port)
        except OverflowError as error:
            raise RunError(f"There is no port {port}. Ports are numbers from 0 to 65535.") from error
        except socket.gaierror as error:
            raise RunError(
                f"{host} is no address of this machine ({error.strerror}). Choose another --host."
            ) from error
        except OSError as error:
            if port != wanted[-1]:
                continue
            why = f"is not free ({error.strerror or error})"
            raise RunError(f"Port {port} on {host} {why}.{_holder(port)} {way}") from error
    raise AssertionError("the last port was bound or refused")


def machine_names() -> tuple[str, ...]:
    """Return the names and addresses of this machine, as a browser writes them."""
    import psutil

    addresses = [one.address.partition("%")[0] for cards in psutil.net_if_addrs().values() for one in cards]
    bracketed = [f"[{one}]" if ":" in one else one for one in addresses]
    return (socket.gethostname(), *bracketed)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol stated, asyncio sends small parts at once (TCP_NODELAY). Otherwise every answer after the first
    # of a connection waits for its client to confirm the head of the answer: 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere this would share the port with its holder
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _holder(port: int) -> str:
    """Return a sentence with the program that holds a port, if the system tells."""
    import psutil

    with suppress(psutil.Error):
        for one in psutil.net_connections("tcp"):
            if one.laddr and one.laddr.port == port and one.status == psutil.CONN_LISTEN and one.pid:
                return f" {psutil.Process(one.pid).name()} (process {one.pid}) holds it."
    return ""
