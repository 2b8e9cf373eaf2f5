"""The answers of a prediction on the screen and as a table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrail.infer.predictor import Answer


def print_answers(answers: Sequence[Answer], json: bool, written: bool) -> None:
    """Print the answers as JSON, or as a table unless they were written to one."""
    from vitrail.cli.output import print_json, table

    if json:
        print_json([one.to_dict() for one in answers])
    elif not written:
        rows = [[one.path, one.error or str(one.prediction)] for one in answers]
        sys.stdout.write(table(["picture", "answer"], rows) + "\n")


def write_csv(path: str, answers: Sequence[Answer], columns: Sequence[str] = ()) -> None:
    """Write path, values and error as a CSV table, atomically; an answer may have several rows.

    `columns` are always present; other columns follow in order of appearance.
    """
    import csv

    from vitrail.core.files import replace

    lines = [line for one in answers for line in _rows(one)]
    named = dict.fromkeys(name for line in lines for name in line if name not in ("path", "error"))
    head = ["path", *dict.fromkeys([*columns, *named]), "error"]

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, head)
            writer.writeheader()
            writer.writerows(lines)

    replace(Path(path), write)


def _rows(answer: Answer) -> list[dict[str, Any]]:
    """Return the rows of an answer: those of the prediction, or its simple values."""
    if answer.error:
        return [{"path": answer.path, "error": answer.error}]
    rows = getattr(answer.prediction, "rows", None)
    if rows is not None:
        return [
            {"path": answer.path, **row} for row in rows() or [{}]
        ]  # an empty prediction still gets a row
    plain = answer.prediction.to_dict()
    flat = {key: value for key, value in plain.items() if isinstance(value, str | int | float)}
    return [{"path": answer.path, **flat}]
