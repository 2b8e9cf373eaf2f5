"""Who may use a server of ours: a token that cannot be guessed, and the hosts that a request may name."""

from __future__ import annotations

import secrets

LOCAL = ("127.0.0.1", "localhost", "[::1]")
"""This machine, as a browser writes it in the Host header."""


def new_token() -> str:
    """Return a token that cannot be guessed."""
    return secrets.token_urlsafe(24)


def same(given: str, token: str) -> bool:
    """Whether two texts are the same, in a time that does not depend on where they differ."""
    return secrets.compare_digest(given.encode(), token.encode())


def host_of(header: str) -> str:
    """Return the host of a Host header, without the port."""
    return header.rpartition(":")[0] if header.rpartition(":")[2].isdigit() else header
