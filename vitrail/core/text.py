"""How names from outside are written, so that any screen, table and file can hold them; and how durations are."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from shlex import join

MADE_BY = "vitrail"
"""What a figure that this project writes says of its software, so that it is known again and never learned from."""


def printable(text: str) -> str:
    r"""Return text that UTF-8 can hold: a byte of a file's name that is none stands as `\xff`."""
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a sign, as Windows and JSON allow it: no byte of a name
        raw = text.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace")


def one_line(text: str) -> str:
    r"""Return printable text without signs that move the cursor: a line break stands as `\n`."""
    signs = (repr(s)[1:-1] if unicodedata.category(s) == "Cc" else s for s in printable(text))
    return "".join(signs)


def reason(error: BaseException) -> str:
    """Return in words what went wrong, without a full stop: an error's first line, with its kind where needed."""
    if isinstance(error, MemoryError):
        return "memory ran out"
    first = str(error).strip().partition("\n")[0].rstrip(".")
    named = isinstance(error, OSError) and error.strerror
    return first if named else f"{type(error).__name__}: {first}" if first else type(error).__name__


def clock(seconds: float) -> str:
    """Write a duration for people: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def command(verb: str, *words: object) -> str:
    """Return a command of ours as it can be copied into a shell: names with blanks in quotes."""
    return f"vitrail {verb} {quoted(words)}".rstrip()


def quoted(words: Iterable[object]) -> str:
    """Return words as a shell takes them."""
    return join(printable(str(word)) for word in words)


def span(least: float, most: float) -> str:
    """Write a duration that is known between two bounds: about 20 min, 20 min to 1 h 5 min."""
    low, high = clock(_rounded(least)), clock(_rounded(most))
    return f"about {low}" if low == high else f"{low} to {high}"


def _rounded(seconds: float) -> float:
    """Return a duration in so few digits as a guess is worth: seconds up to a minute, then minutes, then fives."""
    step = 1 if seconds < 60 else 60 if seconds < 3600 else 300
    return step * round(seconds / step)
