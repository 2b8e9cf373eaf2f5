"""What a click does, as a command line and as lines of Python."""

from __future__ import annotations

from typing import NamedTuple


class Equivalent(NamedTuple):
    """The command line, and the lines of Python that do the same."""

    line: str
    python: str


def joined(first: Equivalent, second: Equivalent) -> Equivalent:
    """Return two clicks one after the other."""
    return Equivalent(f"{first.line}\n{second.line}", f"{first.python}\n{second.python}")
