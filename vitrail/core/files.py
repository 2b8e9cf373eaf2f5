"""Writing that leaves the old file whole whatever happens: power cut, kill -9, full disk."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, BinaryIO, TypeVar

from vitrail.core.errors import RunError, VitrailError

LONGEST_SUFFIX = 20
"""Letters of a suffix that a temporary file keeps: what is longer names no kind of file."""

_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)

BLOCK = 4096
"""Bytes that are written to see whether a place takes any."""

Made = TypeVar("Made")


def replace(path: Path, write: Callable[[Path], Made]) -> Made:
    """Let `write` fill a temporary file beside `path`, put it in the place of `path` in one step, return what it made.

    Folders above are made where they are not there; a link is followed; a device or a pipe is written into.
    Raises a RunError where the disk is full or the folder may not be written; `path` is then as before.
    """
    stays = ""
    try:
        if _is_stream(path):
            return _pour(path, write)
        target = path.resolve() if path.is_symlink() else path
        stays = " What stood there before is whole." if target.exists() else ""
        target.parent.mkdir(parents=True, exist_ok=True)
        return _replace(target, write)
    except Exception as error:
        if _is_disk_trouble(error):
            raise RunError(f"{_not_written(path, error)}{stays}") from error
        raise


def _replace(path: Path, write: Callable[[Path], Made]) -> Made:
    temporary = path.with_name(_temporary_name(path))
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        made = write(temporary)
        with suppress(OSError):  # some mounted disks keep no modes
            temporary.chmod(mode)  # what this user's files have; safetensors keeps its own to the user alone
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        return made
    finally:
        with suppress(OSError):  # it would hide the error that is on its way
            temporary.unlink(missing_ok=True)


def _temporary_name(path: Path) -> str:
    """Return a short name that no other file of the folder has, with the suffix by which writers know the kind."""
    digest = blake2b(os.fsencode(path.name), digest_size=6).hexdigest()
    suffix = path.suffix if len(path.suffix) <= LONGEST_SUFFIX else ""
    return f".{digest}.{os.getpid()}.tmp{suffix}"


def _is_stream(path: Path) -> bool:
    """Tell whether a path is a device or a pipe: a file in its place would take it away from all others."""
    named = path.is_symlink() and path.absolute().parts[1:2] in (("dev",), ("proc",))  # such as /dev/stdout
    return path.exists() and not path.is_dir() and (named or not path.is_file())


def _pour(path: Path, write: Callable[[Path], Made]) -> Made:
    with TemporaryDirectory() as folder:
        draft = Path(folder, _temporary_name(path))
        made = write(draft)
        with draft.open("rb") as source, path.open("wb") as stream:
            copyfileobj(source, stream)
        return made


def replace_folder(path: Path, fill: Callable[[Path], Made]) -> Made:
    """Let `fill` write into a new folder beside `path`, then give it that name in one step, return what it made.

    Raises a RunError where it cannot be written, or where `path` is there already.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=".vitrail-", ignore_cleanup_errors=True) as temporary:
            draft = Path(temporary, path.name)
            draft.mkdir()
            made = fill(draft)
            os.replace(draft, path)
        return made


def refuse_unwritable(path: Path) -> None:
    """Refuse (RunError) a file that cannot be written, before the work that would fill it."""
    with writing(path):
        if path.is_dir():
            raise RunError(f"{path} is a folder, and a file is to be written. Name a file in it.")
        if not _is_stream(path):
            try_place(path.parent)


def refuse_unwritable_folder(folder: Path) -> None:
    """Refuse (RunError) a folder for results that takes no file, before the work that would fill it."""
    try:
        try_place(folder)
    except OSError as error:
        way = "Choose another place with --out." if error.errno in _CLOSED else _way_out(error)
        raise RunError(f"{folder} cannot be written: {_why(error)}. {way}") from error


def try_place(folder: Path) -> None:
    """Write a nameless file into a folder, or the nearest one above that is there; OSError where that fails."""
    above = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    with TemporaryFile(dir=above) as handle:
        handle.write(bytes(BLOCK))  # a full disk still takes a name


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a full disk or a closed folder raises into a RunError that names `path` and the way out."""
    try:
        yield
    except Exception as error:
        if _is_disk_trouble(error):
            raise RunError(_not_written(path, error)) from error
        raise


def _not_written(path: Path, error: Exception) -> str:
    return f"{path} could not be written: {_why(error)}. {_way_out(error)}"


def unusable(error: OSError) -> str:
    """Say which file an error of the system is about, and what to do."""
    way = (
        "Look at its permissions, or choose another place."
        if error.errno == errno.EACCES
        else _way_out(error)
    )
    return f"{error.filename or 'A file'} cannot be read or written: {_why(error)}. {way}"


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _way_out(error: Exception) -> str:
    """Say what to do: room helps where there is none, another place where this one is closed."""
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error).lower():
        return "Make room, then try again."
    if code == errno.ENAMETOOLONG:
        return "Choose a shorter name."
    return "Choose another place, or make that one writable."


def _is_disk_trouble(error: Exception) -> bool:
    # safetensors and torch report a full disk as error types of their own, with the system's words in the text.
    words = ("os error", "i/o error", "failed writing")
    named = any(one in str(error).lower() for one in words)
    return isinstance(error, OSError) or (named and not isinstance(error, VitrailError))


def make_folder(path: Path) -> None:
    """Make a folder and those above it where they are not there; RunError where a file stands in the way."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{path} cannot be a folder: {error.strerror}. Choose another place with --out."
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step; what UTF-8 cannot hold stands escaped, which JSON and YAML read back."""
    replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file in one step."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def append_line(path: Path, value: Any) -> None:
    """Add one JSON value as a line of its own, also behind a line that was cut short; RunError where it cannot be."""
    line = (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", errors="backslashreplace")
    with writing(path), path.open("ab+") as handle:
        if handle.tell() and _last_byte(handle) != b"\n":
            line = b"\n" + line
        handle.write(line)


def _last_byte(handle: BinaryIO) -> bytes:
    handle.seek(-1, os.SEEK_END)
    return handle.read(1)
