"""Text for users: names that every terminal, table and file can hold, commands, and durations."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from shlex import join

MADE_BY = "vitrail"
"""The software tag of figures that vitrail writes; it is used to recognise them and never train on them."""


def printable(text: str) -> str:
    r"""Return text that UTF-8 can encode: an undecodable byte of a file name is written as `\xff`."""
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate, as Windows and JSON allow it: not a byte of a name
        raw = text.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace")


def one_line(text: str) -> str:
    r"""Return printable text without control characters: a line break is written as `\n`."""
    signs = (repr(s)[1:-1] if unicodedata.category(s) == "Cc" else s for s in printable(text))
    return "".join(signs)


def reason(error: BaseException) -> str:
    """Return the first line of an error without a full stop, with the name of its type unless the system wrote it."""
    if isinstance(error, MemoryError):
        return "memory ran out"
    first = str(error).strip().partition("\n")[0].rstrip(".")
    if isinstance(error, OSError) and error.strerror:
        return first
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def clock(seconds: float) -> str:
    """Return a duration as text: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def command(verb: str, *words: object) -> str:
    """Return a vitrail command that can be copied into a shell: names with spaces are quoted."""
    return f"vitrail {verb} {quoted(words)}".rstrip()


def quoted(words: Iterable[object]) -> str:
    """Return words quoted for a shell."""
    return join(printable(str(word)) for word in words)


def span(least: float, most: float) -> str:
    """Return a range of durations as text: about 20 min, 20 min to 1 h 5 min."""
    low, high = clock(_rounded(least)), clock(_rounded(most))
    return f"about {low}" if low == high else f"{low} to {high}"


def _rounded(seconds: float) -> float:
    """Round an estimated duration to seconds below a minute, to minutes below an hour, then to five minutes."""
    step = 1 if seconds < 60 else 60 if seconds < 3600 else 300
    return step * round(seconds / step)
