"""Parse and sort names: labels, splits, files. No NumPy, no torch."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

IMAGES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff",
    ".avif", ".avifs", ".heic", ".heif", ".jp2", ".j2k", ".jpx", ".jxl", ".mpo", ".ico", ".dcm",
    ".pbm", ".pgm", ".ppm", ".pnm",
))  # fmt: skip
"""Suffixes of image files; only decoding shows whether a file is really an image."""

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
"""Usual names of splits → their names in the manifest."""

_AGAIN = frozenset(("eval", "evaluation"))
"""Words that mean val if there is no other val, otherwise test."""

_BESIDE_SPLIT = frozenset((
    "set", "sets", "data", "dataset", "split", "folder", "dir", "image", "images", "img", "imgs", "photo", "photos",
    "picture", "pictures", "pic", "pics", "sample", "samples", "example", "examples", "class", "classes", "jpg", "png",
    "seg", "cls", "labels", "label", "list", "lists", "final", "new", "small", "full", "all", "raw",
))  # fmt: skip
"""Words that can be combined with the name of a split without changing its meaning: training_set, images_val."""

_NUMBER = re.compile(r"(\d+)")
_BAR = re.compile(r"(?<!\\)\|")


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts "img2" before "img10"; case is compared last."""
    parts = _NUMBER.split(unicodedata.normalize("NFC", text))
    key = [(0, int(part), "") if i % 2 else (1, 0, part.casefold()) for i, part in enumerate(parts)]
    return (*key, (2, 0, text))


def label(text: str) -> str:
    """Return a label in normal form, so that two encodings of "é" are not two classes."""
    return unicodedata.normalize("NFC", text).strip()


def same_name(text: str) -> str:
    """Return a name for comparisons that ignore capitals, surrounding blanks and encodings of accents."""
    return unicodedata.normalize("NFC", text).strip().casefold()


def join_labels(labels: Iterable[str]) -> str:
    """Return several labels as one cell, separated by bars, in natural order and without duplicates."""
    return "|".join(one.replace("|", r"\|") for one in sorted({label(one) for one in labels}, key=natural))


def split_labels(cell: str) -> tuple[str, ...]:
    r"""Return the labels of a cell written by `join_labels`; a bar inside a label is written as `\|`."""
    return tuple(one.replace(r"\|", "|") for one in _BAR.split(cell) if one)


def split_of(name: str) -> str | None:
    """Return "train", "val" or "test" for any usual name of a split, or None for other words."""
    return SPLITS.get(name.strip().casefold())


def split_in(name: str) -> str:
    """Return the split named by a word of a file path, such as data/train.csv, or ""."""
    return next((found for word in re.split(r"[/._-]", name) if (found := split_of(word))), "")


def splits_of(names: Iterable[str]) -> dict[str, str]:
    """Return name → split for those of the sibling folders, or words of a column, that are names of splits.

    The word of a split may be combined with others: training_set, images-val, train2017, seg_test beside seg_train. The
    rest must consist of words without meaning, or be equal for all splits: "train_station" beside "bus" is no split.
    """
    candidates: dict[str, tuple[str, tuple[str, ...]]] = {}
    for name in names:
        words = _words(name)
        splits = [word for word in words if word in SPLITS or word in _AGAIN]
        if len(splits) == 1:
            rest = tuple(word for word in words if word != splits[0] and not word.isdigit())
            candidates[name] = splits[0], rest
    plain = {name for name, (_, rest) in candidates.items() if all(word in _BESIDE_SPLIT for word in rest)}
    counts = Counter(rest for _, rest in candidates.values())
    chosen = {name: word for name, (word, rest) in candidates.items() if name in plain or counts[rest] > 1}
    again = "test" if any(SPLITS.get(word) == "val" for word in chosen.values()) else "val"
    return {name: SPLITS.get(word, again) for name, word in chosen.items()}


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case: TrainSet_2017 is train, set and 2017."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [
        word
        for one in re.findall(r"[^\W\d_]+|\d+", parted)
        for word in _JOINED.get(one.casefold(), (one.casefold(),))
    ]


_JOINED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {f"{word}{more}": (word, more) for word in SPLITS for more in ("set", "data", "list", "images", "imgs")}
)


def is_image(name: str) -> bool:
    """Return whether a file name has the suffix of an image."""
    return "." + name.rsplit(".", 1)[-1].lower() in IMAGES


def shorten(names: Iterable[str], most: int = 3) -> str:
    """Return the first few names as text, then the number of the others."""
    every = list(names)
    rest = len(every) - most
    return ", ".join(every[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def is_no_class(name: str) -> bool:
    """Return whether an output with this name stands for no class: "N/A" in COCO's list, or "unused 12"."""
    return bool(re.fullmatch(r"\s*|n/?a|__background__|unused \d+", name, re.IGNORECASE))


def count(number: int, noun: str, many: str = "") -> str:
    """Return a number with its noun: "1 image", "1,797 images"."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"
