"""Write the table of probable label errors (`Probe.doubts`)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from vitrail.core.files import replace
from vitrail.data.own_outputs import DOUBTS
from vitrail.tasks.probe import Doubt


def write_doubts(path: Path, doubtful: Sequence[Doubt]) -> None:
    """Write label errors as CSV: id, label, predicted label, probability."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(DOUBTS)
            for one in doubtful:
                writer.writerow([one.row.id, one.cell, one.looks_like, f"{one.probability:.4f}"])

    replace(path, write)
