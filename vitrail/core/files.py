"""Atomic writing: the old file stays intact after a power cut, kill -9 or a full disk."""

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
"""Longest suffix that a temporary file keeps; a longer one does not name a file type."""

_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)

BLOCK = 4096
"""Bytes that are written to test whether a folder is writable."""

Made = TypeVar("Made")


def replace(path: Path, write: Callable[[Path], Made]) -> Made:
    """Let `write` fill a temporary file beside `path`, then replace `path` with it in one step; return its result.

    Missing parent folders are created; a link is followed; a device or a pipe is written directly.
    Raise a RunError if the disk is full or the folder is not writable; `path` is then unchanged.
    """
    stays = ""
    try:
        if _is_stream(path):
            return _pour(path, write)
        target = path.resolve() if path.is_symlink() else path
        stays = " The previous file is unchanged." if target.exists() else ""
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
        with suppress(OSError):  # some mounted disks have no file modes
            temporary.chmod(mode)  # the user's default; safetensors makes its files private
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        return made
    finally:
        with suppress(OSError):  # an error here would hide the first one
            temporary.unlink(missing_ok=True)


def _temporary_name(path: Path) -> str:
    """Return a short unique name with the suffix of `path`, because writers choose the format by the suffix."""
    digest = blake2b(os.fsencode(path.name), digest_size=6).hexdigest()
    suffix = path.suffix if len(path.suffix) <= LONGEST_SUFFIX else ""
    return f".{digest}.{os.getpid()}.tmp{suffix}"


def _is_stream(path: Path) -> bool:
    """Tell whether a path is a device or a pipe, which must not be replaced by a file."""
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
    """Let `fill` write into a new folder beside `path`, then rename it to `path` in one step; return its result.

    Raise a RunError if the folder cannot be written, or if `path` already exists.
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
    """Raise a RunError for a file that cannot be written, before the work for its content."""
    with writing(path):
        if path.is_dir():
            raise RunError(f"{path} is a folder, but a file is needed. Name a file in it.")
        if not _is_stream(path):
            try_place(path.parent)


def refuse_unwritable_folder(folder: Path) -> None:
    """Raise a RunError for a folder that cannot be written, before the work for its content."""
    try:
        try_place(folder)
    except OSError as error:
        hint = "Choose another place with --out." if error.errno in _CLOSED else _way_out(error)
        raise RunError(f"{folder} cannot be written: {_why(error)}. {hint}") from error


def try_place(folder: Path) -> None:
    """Write a temporary file into a folder, or into its nearest existing parent. OSError if that fails."""
    existing = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    with TemporaryFile(dir=existing) as handle:
        handle.write(bytes(BLOCK))  # creating an empty file also works on a full disk


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of a full disk or a read-only folder into a RunError that names `path` and a solution."""
    try:
        yield
    except Exception as error:
        if _is_disk_trouble(error):
            raise RunError(_not_written(path, error)) from error
        raise


def _not_written(path: Path, error: Exception) -> str:
    return f"{path} could not be written: {_why(error)}. {_way_out(error)}"


def unusable(error: OSError) -> str:
    """Return the message for an OSError: the file, the reason and a solution."""
    hint = _way_out(error)
    if error.errno == errno.EACCES:
        hint = "Check its permissions, or choose another place."
    return f"{error.filename or 'A file'} cannot be read or written: {_why(error)}. {hint}"


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _way_out(error: Exception) -> str:
    """Return the solution for an error: free disk space, a shorter name, or another folder."""
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error).lower():
        return "Free some disk space, then try again."
    if code == errno.ENAMETOOLONG:
        return "Choose a shorter name."
    return "Choose another place, or make this one writable."


def _is_disk_trouble(error: Exception) -> bool:
    # safetensors and torch report a full disk with their own error types, which quote the system's message.
    words = ("os error", "i/o error", "failed writing")
    named = any(one in str(error).lower() for one in words)
    return isinstance(error, OSError) or (named and not isinstance(error, VitrailError))


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents. RunError if a file has this name."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{path} cannot be a folder: {error.strerror}. Choose another place with --out."
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step. Characters that UTF-8 cannot encode are escaped; JSON and YAML can read them."""
    replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file in one step."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def append_line(path: Path, value: Any) -> None:
    """Append one JSON value as a new line, also after an incomplete line. RunError if it cannot be written."""
    line = (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", errors="backslashreplace")
    with writing(path), path.open("ab+") as handle:
        if handle.tell() and _last_byte(handle) != b"\n":
            line = b"\n" + line
        handle.write(line)


def _last_byte(handle: BinaryIO) -> bytes:
    handle.seek(-1, os.SEEK_END)
    return handle.read(1)
