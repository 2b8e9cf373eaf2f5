"""How names from outside are written, so that any screen, table and file can hold them; and how durations are."""

from __future__ import annotations

import unicodedata


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
