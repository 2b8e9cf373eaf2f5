"""How verbs speak: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


def print_json(value: Any) -> None:
    """Print one JSON value."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def say(line: str) -> None:
    """Print one line for people."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return a plain table; the columns in `right` are flush right."""
    from unicodedata import east_asian_width

    def width(text: str) -> int:  # Chinese and Japanese signs are two columns wide
        return sum(2 if east_asian_width(sign) in "WF" else 1 for sign in text)

    widths = [max(width(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = []
        for i, cell in enumerate(row):
            gap = " " * (widths[i] - width(cell))
            cells.append(gap + cell if i in right else cell + gap)
        return "  ".join(cells).rstrip()

    return "\n".join(line(row) for row in (head, *rows))
