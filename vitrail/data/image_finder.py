"""Find the image file that a name in a table or annotation file refers to."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from vitrail.data.labels import count, is_image, same_name, shorten, splits_of

ADDRESS = "is named by an address. Download it first"
GONE = "is named in the table but does not exist"
FREELY = "only without regard to capitals, accents, leading zeros or suffix"


class Finder:
    """Finds images by path, relative to a table, or by file name with or without suffix.

    `files` maps names in the tree to paths below `root`, only for images. `freely` counts names that match only if
    capitals, accents, leading zeros and suffix are ignored.
    """

    def __init__(self, files: Mapping[str, str], root: Path) -> None:
        self.files = files
        self.root = root
        self.freely = 0

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """File name, with and without suffix → images with this name."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in self.files:
            file = name.rsplit("/", 1)[-1]
            for key in dict.fromkeys((file, _stem(file))):
                found[key].append(name)
        return found

    @cached_property
    def _by_same(self) -> dict[str, list[str]]:
        """The same mapping, ignoring capitals, accents and leading zeros."""
        found: dict[str, dict[str, None]] = defaultdict(dict)
        for key, names in self._by_name.items():
            for one in (same_name(key), _number(key)):
                found[one].update(dict.fromkeys(names))
        return {key: list(names) for key, names in found.items()}

    def called(self, cell: str, split: str = "") -> list[str]:
        """Return the images that match a cell; of several, those that match most of the path, and the split."""
        wanted = plain_path(cell)
        if wanted in self.files:
            return [wanted]
        last = wanted.rsplit("/", 1)[-1]
        found = self._by_name.get(last, [])
        if not found:
            keys = [same_name(last), _number(last), *([same_name(_stem(last))] if is_image(last) else [])]
            keys += (
                [same_name(last[9:])] if re.match(r"[0-9a-f]{8}-", last) else []
            )  # as Label Studio stores it
            found = next((names for key in keys if (names := self._by_same.get(key))), [])
            self.freely += bool(found)
        if len(found) > 1:
            end = "/" + same_name(wanted)
            found = [
                n for n in found if same_name(n).endswith(end) or same_name(_stem(n)).endswith(end)
            ] or found
        if len(found) > 1 and split:
            found = [n for n in found if split in split_folders(n)] or found
        return found

    def __call__(self, cell: str, base: str = "", split: str = "") -> tuple[str, str]:
        """Return (path, trouble); trouble is empty if exactly one image matches."""
        address = re.match(r"[a-z0-9]+://", cell)
        wanted = plain_path(cell)
        if address:
            found = self.called(wanted, split)
            return (self.files[found[0]], "") if len(found) == 1 else (cell, ADDRESS)
        if wanted.startswith("/") or re.match("[A-Za-z]:/", wanted):
            return self._absolute(wanted)
        for prefix in (base, ""):
            name = os.path.normpath(prefix + wanted)
            if name in self.files:
                return self.files[name], ""
            if ".." in name.split("/") and (self.root / name).is_file():
                return name, ""
        found = self.called(wanted, split)
        if len(found) > 1:
            return wanted, f"is named in the table, but {count(len(found), 'image')} are called so"
        if not found:
            return wanted, GONE
        return self.files[found[0]], ""

    def meant(self, cells: Iterable[str], base: str = "", split: str = "") -> tuple[int, str]:
        """Return the number of different images that match, and the problem if names match several images.

        `split` is the split of all names, if known: it distinguishes 0.png of train from 0.png of test.
        """
        before = self.freely
        paths, several = set(), []
        for cell in cells:
            path, trouble = self(cell, base, split)
            if not trouble:
                paths.add(path)
            elif len(found := self.called(cell, split)) > 1:
                several.append((cell, found))
        self.freely = before
        if 2 * len(several) <= len(paths):
            return len(paths), ""
        cell, found = several[0]
        where = shorten((name.rpartition("/")[0] or "." for name in found), 2).replace(", ", " and in ")
        return len(paths), f"{cell} lies in {where}: write the folder, too ({found[0]})"

    def _absolute(self, wanted: str) -> tuple[str, str]:
        if Path(wanted).is_file():
            return Path(os.path.relpath(wanted, self.root)).as_posix(), ""
        found = self.called(wanted)  # the path of another computer
        return (self.files[found[0]], "") if len(found) == 1 else (wanted, GONE)


def folder_of(name: str) -> str:
    """Return the folder of a list as a prefix for the names in it; "" at the top or outside the tree."""
    folder = name.rpartition("/")[0]
    return f"{folder}/" if folder and not name.startswith("/") else ""


def plain_path(cell: str) -> str:
    """Return a normalised path: with slashes, without surrounding blanks, address or query."""
    path = cell.strip().replace("\\", "/").removeprefix("./")
    path = path.rpartition("?d=")[2]
    return re.sub(r"^[a-z0-9]+://", "", path)


def split_folders(name: str) -> Counter[str]:
    """Return the splits named by the folders above an image."""
    return Counter(splits_of(name.split("/")[:-1]).values())


def _stem(file: str) -> str:
    """Return a file's name without its suffix, if it has one."""
    stem, dot, _ = file.rpartition(".")
    return stem if dot and stem else file


def _number(name: str) -> str:
    """Return a normalised name without leading zeros in its numbers."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", same_name(name))
