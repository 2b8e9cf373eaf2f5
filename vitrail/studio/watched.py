"""`python -m vitrail.studio.watched FILE WORDS…` runs `vitrail WORDS…` and writes down what it connects to."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from vitrail.studio.connections import Connections


def watched(path: Path, words: Sequence[str]) -> list[str]:
    """Return the command line of a vitrail command whose connections are written to a file."""
    # -P: a file of the user called queue.py in the studio's folder must not be imported.
    return [sys.executable, "-P", "-m", "vitrail.studio.watched", str(path), *words]


def main() -> None:
    """Run the command."""
    path, *words = sys.argv[1:]
    Connections(Path(path)).watch(" ".join(words[:1]))
    sys.argv[1:] = words
    runpy.run_module("vitrail", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
