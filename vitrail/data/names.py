"""How names are read and put in order: labels, splits, files. No NumPy, no torch."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from types import MappingProxyType

PICTURES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff",
    ".avif", ".avifs", ".heic", ".heif", ".jp2", ".j2k", ".jpx", ".jxl", ".mpo", ".ico", ".dcm",
    ".pbm", ".pgm", ".ppm", ".pnm",
))  # fmt: skip
"""Suffixes that promise a picture; whether the file keeps the promise is found by decoding it."""

SPLITS: Mapping[str, str] = MappingProxyType(
    {
        "train": "train",
        "training": "train",
        "val": "val",
        "valid": "val",
        "validation": "val",
        "dev": "val",
        "test": "test",
        "testing": "test",
    }
)
"""How people call the three splits → what the manifest calls them."""

_NUMBER = re.compile(r"(\d+)")
_BAR = re.compile(r"(?<!\\)\|")


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key under which "img2" stands before "img10" and case decides last."""
    parts = _NUMBER.split(unicodedata.normalize("NFC", text))
    key = [(0, int(part), "") if i % 2 else (1, 0, part.casefold()) for i, part in enumerate(parts)]
    return (*key, (2, 0, text))


def label(text: str) -> str:
    """Return a label in one spelling, so that "é" written in two ways is not two classes."""
    return unicodedata.normalize("NFC", text).strip()


def join_labels(labels: Iterable[str]) -> str:
    """Write several labels into one cell, separated by bars, in natural order and each once."""
    return "|".join(one.replace("|", r"\|") for one in sorted({label(one) for one in labels}, key=natural))


def split_labels(cell: str) -> tuple[str, ...]:
    r"""Read a cell that `join_labels` wrote; a bar inside a label stands as `\|`."""
    return tuple(one.replace(r"\|", "|") for one in _BAR.split(cell) if one)


def split_of(name: str) -> str | None:
    """Return "train", "val" or "test" for any usual spelling of a split, or None for another word."""
    return SPLITS.get(name.strip().casefold())


def is_picture(name: str) -> bool:
    """Tell whether a file's name promises a picture."""
    return "." + name.rsplit(".", 1)[-1].lower() in PICTURES


def some(names: Iterable[str], most: int = 3) -> str:
    """Write a list for people: the first few names, then how many more there are."""
    every = list(names)
    rest = len(every) - most
    return ", ".join(every[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def count(number: int, noun: str, many: str = "") -> str:
    """Write a number with its noun: "1 picture", "1,797 pictures"."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"
