"""How names are read and put in order: labels, splits, files. No NumPy, no torch."""

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
"""Suffixes that promise an image; whether the file keeps the promise is found by decoding it."""

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

_AGAIN = frozenset(("eval", "evaluation"))
"""Words for val where there is no other, else for test."""

_BESIDE_SPLIT = frozenset((
    "set", "sets", "data", "dataset", "split", "folder", "dir", "image", "images", "img", "imgs", "photo", "photos",
    "picture", "pictures", "pic", "pics", "sample", "samples", "example", "examples", "class", "classes", "jpg", "png",
    "seg", "cls", "labels", "label", "final", "new", "small", "full", "all", "raw",
))  # fmt: skip
"""Words that stand beside that of a split without changing what it says: training_set, images_val."""

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


def same_name(text: str) -> str:
    """Return a name as it is compared where capitals, blanks around it and spellings of accents do not count."""
    return unicodedata.normalize("NFC", text).strip().casefold()


def join_labels(labels: Iterable[str]) -> str:
    """Write several labels into one cell, separated by bars, in natural order and each once."""
    return "|".join(one.replace("|", r"\|") for one in sorted({label(one) for one in labels}, key=natural))


def split_labels(cell: str) -> tuple[str, ...]:
    r"""Read a cell that `join_labels` wrote; a bar inside a label stands as `\|`."""
    return tuple(one.replace(r"\|", "|") for one in _BAR.split(cell) if one)


def split_of(name: str) -> str | None:
    """Return "train", "val" or "test" for any usual spelling of a split, or None for another word."""
    return SPLITS.get(name.strip().casefold())


def split_in(name: str) -> str:
    """Return the split that a word of a file's path names, such as that of data/train.csv, or nothing."""
    return next((found for word in re.split(r"[/._-]", name) if (found := split_of(word))), "")


def splits_of(names: Iterable[str]) -> dict[str, str]:
    """Return name → split of folders that lie side by side, or of the words of one column, those that are splits.

    A word may stand in front or behind: training_set, images-val, train2017, seg_test beside seg_train. What else
    stands there must be a word of no weight, or the same beside every split: "train_station" beside "bus" is none.
    """
    told: dict[str, tuple[str, tuple[str, ...]]] = {}
    for name in names:
        words = _words(name)
        found = [word for word in words if word in SPLITS or word in _AGAIN]
        if len(found) == 1:
            rest = tuple(word for word in words if word != found[0] and not word.isdigit())
            told[name] = found[0], rest
    light = {name: rest for name, (_, rest) in told.items() if all(word in _BESIDE_SPLIT for word in rest)}
    alike = Counter(rest for _, rest in told.values())
    chosen = {name: word for name, (word, rest) in told.items() if name in light or alike[rest] > 1}
    again = "test" if any(SPLITS.get(word) == "val" for word in chosen.values()) else "val"
    return {name: SPLITS.get(word, again) for name, word in chosen.items()}


def _words(name: str) -> list[str]:
    """Return the words of a name in small letters: TrainSet_2017 is train, set and 2017."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [
        word
        for one in re.findall(r"[^\W\d_]+|\d+", parted)
        for word in _JOINED.get(one.casefold(), (one.casefold(),))
    ]


_JOINED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {f"{word}{more}": (word, more) for word in SPLITS for more in ("set", "data", "images", "imgs")}
)


def is_image(name: str) -> bool:
    """Tell whether a file's name promises an image."""
    return "." + name.rsplit(".", 1)[-1].lower() in IMAGES


def shorten(names: Iterable[str], most: int = 3) -> str:
    """Write a list for people: the first few names, then how many more there are."""
    every = list(names)
    rest = len(every) - most
    return ", ".join(every[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def count(number: int, noun: str, many: str = "") -> str:
    """Write a number with its noun: "1 image", "1,797 images"."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"
