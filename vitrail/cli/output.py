"""Output of verbs: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from vitrail.core.text import one_line


def print_json(value: Any) -> None:
    """Print one JSON value; lone surrogates, which UTF-8 cannot encode, are written as JSON escapes."""
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def say(line: str) -> None:
    """Print one line on standard error."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return a plain text table, one line per row; columns in `right` are right-aligned."""
    from unicodedata import east_asian_width

    def width(text: str) -> int:  # East Asian characters are two columns wide
        return sum(2 if east_asian_width(sign) in "WF" else 1 for sign in text)

    lines = [[one_line(cell) for cell in row] for row in (head, *rows)]
    widths = [max(width(row[i]) for row in lines) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = []
        for i, cell in enumerate(row):
            gap = " " * (widths[i] - width(cell))
            cells.append(gap + cell if i in right else cell + gap)
        return "  ".join(cells).rstrip()

    return "\n".join(line(row) for row in lines)


def unread(failed: int, asked: int, done: str = "read") -> str:
    """Say how many of the named images could not be read (or another action, `done`)."""
    if failed < asked:
        return f"{failed} of {asked} images could not be {done}; the others were processed."
    return f"The image could not be {done}." if asked == 1 else f"None of the {asked} images could be {done}."
