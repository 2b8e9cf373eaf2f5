"""The table that trains on real and generated images: the latter for training only, and marked."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from vitrail.core.files import make_folder, replace
from vitrail.data.manifest import DUPLICATES, Manifest, Row
from vitrail.data.open_image import load
from vitrail.plots import of_array

NAME = "images.csv"


def write_table(folder: Path, manifest: Manifest, made: Sequence[Row]) -> Path:
    """Write the table of all images with their class and split, and return it; `made` says which are generated.

    Paths are relative to the table. Images inside other files (archives, pages) are written beside it.
    """
    rows = [*manifest.rows(), *made]
    generated = {row.id for row in made}
    grouped = any(row.group and not row.group.startswith(DUPLICATES) for row in rows)
    lines = []
    for row in rows:
        line = {
            "path": _path(folder, manifest.root, row),
            "label": row.target,
            "split": row.split,
            "made": "yes" if row.id in generated else "no",
        }
        lines.append(line | ({"group": row.group or row.id} if grouped else {}))

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)

    table = folder / NAME
    replace(table, write)
    return table


def _path(folder: Path, root: Path, row: Row) -> str:
    file = root / row.path
    if not row.part and file.is_file():
        return Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()
    name = f"{row.hash or abs(hash(row.id))}.png"
    make_folder(folder / "real")
    of_array(load(root, row.path, 3, row.part).image).save(folder / "real" / name)
    return f"real/{name}"
