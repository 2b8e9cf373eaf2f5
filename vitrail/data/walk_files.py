"""List the files of folders and archives, for check, training, prediction and explanation.

Files of operating systems, editors and version control are not data: they are left out and counted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vitrail.core.errors import DataError
from vitrail.core.text import printable
from vitrail.data import archives, videos
from vitrail.data.labels import count, is_image, natural, shorten

_SYSTEM = frozenset((
    "__macosx", "@eadir", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found",
    "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "_ds_store", "icon\r",
))  # fmt: skip
"""Names of system folders and files, in lower case; names that start with a dot count as well."""

_OTHER = frozenset((
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".md",
    ".rst", ".html", ".htm", ".css", ".js", ".py", ".ipynb", ".r", ".m", ".mat", ".sh", ".bat", ".log", ".pdf",
    ".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z",
    ".rar", ".parquet", ".arrow", ".npz", ".npy", ".h5", ".hdf5", ".pkl", ".pt", ".pth", ".ckpt", ".onnx",
    ".safetensors", ".bin", ".nii", ".db", ".sqlite", ".wav", ".mp3", ".exe",
    ".dll", ".so", ".cls", ".lock", *videos.SUFFIXES,
))  # fmt: skip
"""Suffixes of files that are not images, so that their first bytes do not have to be read."""

_HEAD = 132
_SIGNATURES = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*",
    b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51",
)  # fmt: skip
_BRANDS = frozenset((b"avif", b"avis", b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"))


@dataclass
class Walk:
    """All files below a root in natural order, and all other entries, by their names inside the root.

    `folders` could be opened, `closed` could not; `hidden` is left out, `loops` are links to a parent folder, `dead`
    are broken links and entries that are not files, `foreign` are names that are not UTF-8.
    """

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return notes on what was left out."""
        notes = hidden_note(self.hidden)
        if self.loops:
            notes.append(
                f"{count(len(self.loops), 'link')} leading back upwards not followed: {shorten(self.loops)}."
            )
        if self.dead:
            notes.append(f"{count(len(self.dead), 'link')} leading nowhere left out: {shorten(self.dead)}.")
        return notes


def walk(root: Path) -> Walk:
    """Return the entries below a folder; links are followed once.

    Raises:
        DataError: the folder itself cannot be opened.
    """
    found = Walk()
    _visit(found, root, "", frozenset())
    if not found.files and found.closed == [str(root)]:
        raise DataError(f"{root} may not be read. Change its permissions: chmod -R u+rX {root.name}.")
    return found


def _visit(found: Walk, folder: Path, prefix: str, above: frozenset[str]) -> None:
    real = os.path.realpath(folder)
    if real in above:
        found.loops.append(prefix.rstrip("/"))
        return
    try:
        with os.scandir(folder) as listing:
            items = sorted(listing, key=lambda item: natural(item.name))
    except OSError:
        found.closed.append(prefix.rstrip("/") or str(folder))
        return
    found.folders.append(prefix.rstrip("/"))
    for item in items:
        name = prefix + item.name
        if is_hidden(item.name):
            found.hidden.append(name)
        elif printable(item.name) != item.name:  # a manifest is UTF-8 and cannot contain this name
            found.foreign.append(name)
        elif item.is_dir():
            _visit(found, Path(item.path), f"{name}/", above | {real})
        else:
            (found.files if item.is_file() else found.dead).append(name)


def is_hidden(name: str) -> bool:
    """Return whether a part of a name is that of a system or editor file, or of an output of `vitrail check`."""
    parts = [part.casefold() for part in name.split("/")]
    return parts[-1].endswith(".vitrail.jsonl") or any(
        part.startswith(".") or part in _SYSTEM for part in parts if part not in {"", ".", ".."}
    )


def hidden_note(hidden: list[str]) -> list[str]:
    """Return a note with the number of hidden and system files and folders that were left out."""
    noun = ("hidden or system file or folder", "hidden or system files and folders")
    return [f"{count(len(hidden), *noun)} left out: {shorten(map(printable, hidden))}."] if hidden else []


def is_image_at(root: Path, path: str) -> bool:
    """Return whether a file is an image, by its suffix or else by its first bytes; also in an archive."""
    if is_image(path) or PurePosixPath(path).suffix.lower() in _OTHER:
        return is_image(path)
    return looks_like_image(head_of(root, path, _HEAD))


def head_of(root: Path, path: str, size: int) -> bytes:
    """Return the first bytes of a file, also in an archive; empty if it cannot be read."""
    outer, _, member = path.partition("!")
    try:
        if member and archives.is_archive(outer):
            return archives.head(root / outer, member, size)
        with (root / path).open("rb") as handle:
            return handle.read(size)
    except (OSError, DataError):
        return b""


def looks_like_image(head: bytes) -> bool:
    """Return whether the first 132 bytes of a file are those of a supported format."""
    if head.startswith(_SIGNATURES) or head[128:132] == b"DICM":
        return True
    in_boxes = head[4:8] == b"ftyp" and head[8:12] in _BRANDS
    webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    return in_boxes or webp or (head.startswith(b"BM") and head[6:10] == bytes(4))
