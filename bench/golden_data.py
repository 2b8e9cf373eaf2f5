"""The images of the golden numbers: digits, pairs of them with several labels, a table with an unlabelled row."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

EACH = 24
"""Images of each digit."""

PAIRS = 120


def make_data(folder: Path) -> None:
    """Write all of them below a folder; no code of either commit takes part."""
    files = _digits(folder / "digits")
    _pairs(folder / "pairs", files)
    _unlabelled(folder)


def _digits(root: Path) -> dict[int, list[Path]]:
    digits = load_digits()
    files: dict[int, list[Path]] = {name: [] for name in range(10)}
    for number, (image, target) in enumerate(zip(digits.images, digits.target, strict=True)):
        found = files[int(target)]
        if len(found) < EACH:
            found.append(root / str(target) / f"{number:04}.png")
            found[-1].parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8)).save(found[-1])
    return files


def _pairs(root: Path, files: dict[int, list[Path]]) -> None:
    """Two of four digits side by side, labelled with both."""
    draw = np.random.default_rng(0)
    (root / "pictures").mkdir(parents=True)
    rows = []
    for number in range(PAIRS):
        two = draw.integers(4, size=2)
        halves = [np.asarray(Image.open(files[int(d)][draw.integers(EACH)])) for d in two]
        Image.fromarray(np.concatenate(halves, axis=1)).save(root / f"pictures/{number}.png")
        rows.append([f"pictures/{number}.png", "|".join(sorted({str(d) for d in two}))])
    _table(root / "labels.csv", rows)


def _unlabelled(folder: Path) -> None:
    """Four digits by a table in which one image has no label."""
    names = sorted(path for digit in range(4) for path in (folder / "digits" / str(digit)).iterdir())
    rows = [[path.relative_to(folder).as_posix(), path.parent.name] for path in names]
    rows[40][1] = ""
    _table(folder / "unlabelled.csv", rows)


def _table(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([["path", "label"], *rows])
