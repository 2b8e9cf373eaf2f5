"""Pictures that a user gave a model to look at: kept by content, so that their page can be loaded again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, NamedTuple

from vitrail.core.errors import DataError, RunError
from vitrail.core.files import writing
from vitrail.data.decode import decode
from vitrail.data.videos import is_video, read_clip
from vitrail.studio.workspace import safe_name

if TYPE_CHECKING:
    from vitrail.data.preprocess import Preprocess

MOST_BYTES = 64 << 20
"""Largest size of one picture in bytes."""

KEPT = 400
"""Number of pictures that are kept; the oldest go first."""

KEY = re.compile(r"[0-9a-f]{24}")


class Picture(NamedTuple):
    """A kept picture: its key in addresses, and its file, which has the name that the user gave it."""

    key: str
    path: Path


class Pictures:
    """The kept pictures of a studio; each lies in a folder named by its content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, data: bytes, bands: tuple[int, Preprocess | None] = (3, None)) -> Picture:
        """Keep a picture that a model reads with these `bands` (`RunFiles.bands`).

        Raises:
            DataError: it cannot be read as an image or a video, or is too large.
        """
        shown = safe_name(name or "picture.png")
        if len(data) > MOST_BYTES:
            raise DataError(f"{shown} is larger than {MOST_BYTES >> 20} MB. Make it smaller.")
        channels, steps = bands
        if is_video(shown):
            read_clip(data, "", 1, name=shown)
        elif steps is None:
            decode(data, channels, shown)
        else:
            from vitrail.data.rasters.whole_file import decode_for

            decode_for(steps, data, shown)
        key = blake2b(data, digest_size=12).hexdigest()
        path = self.folder / key / shown
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for old in path.parent.iterdir():
                old.unlink()
            path.write_bytes(data)
        self._drop_old()
        return Picture(key, path)

    def picture(self, key: str) -> Picture:
        """Return a kept picture. RunError if there is none with this key."""
        folder = self.folder / key
        files = sorted(folder.iterdir()) if KEY.fullmatch(key) and folder.is_dir() else []
        if not files:
            raise RunError("This picture is not kept any more. Drop it again.")
        return Picture(key, files[0])

    def recent(self, count: int) -> Sequence[Picture]:
        """Return the last pictures, the newest first."""
        return [Picture(path.parent.name, path) for path in self._files()[:count]]

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        files = [path for path in self.folder.glob("*/*") if KEY.fullmatch(path.parent.name)]
        return sorted(files, key=lambda path: -path.stat().st_mtime_ns)

    def _drop_old(self) -> None:
        for path in self._files()[KEPT:]:
            rmtree(path.parent, ignore_errors=True)
