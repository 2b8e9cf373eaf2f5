"""Read zip and tar files in place. Nothing is unpacked; paths that leave the archive and zip bombs are refused."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import IO, Any, NamedTuple, Protocol

from vitrail.core.errors import DataError
from vitrail.core.text import command, printable
from vitrail.data.labels import natural

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
CLOSED = (".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar")

MOST_BYTES = 1 << 28
"""Largest size of a member that is read: 256 MB."""

_SMALL = 1 << 24  # below this size, a high compression ratio is a harmless drawing
_RATIO = 100  # images are already compressed; a drawing saved without compression reaches 50
_TOTAL, _TOTAL_RATIO = 1 << 30, 200


class Member(NamedTuple):
    """One file in an archive; `trouble` is the reason why it is not read, as a predicate ("is encrypted")."""

    name: str
    size: int
    trouble: str = ""


class _Archive(Protocol):
    members: tuple[Member, ...]

    def read(self, name: str) -> bytes: ...

    def head(self, name: str, size: int) -> bytes: ...


def is_archive(name: str) -> bool:
    """Return whether a file name is that of an archive that can be read in place."""
    return name.lower().endswith(SUFFIXES)


def members(file: Path) -> tuple[Member, ...]:
    """Return the files of an archive in natural order.

    Raises:
        DataError: the archive is broken, or is a zip bomb.
    """
    return _opened(file).members


def read_member(file: Path, name: str) -> bytes:
    """Return the bytes of one member.

    Raises:
        DataError: the member does not exist, is broken, or is refused.
    """
    shown = f"{file.name}!{name}"
    try:
        return _opened(file).read(name)
    except KeyError as error:
        raise DataError(
            f"{shown} does not exist. Check the archive again: {command('check', file)}."
        ) from error
    except Exception as error:  # as below
        raise DataError(f"{shown} is broken ({error}). Make the archive again.") from error


def head(file: Path, name: str, size: int) -> bytes:
    """Return the first bytes of one member without reading the rest; raises like `read_member`."""
    try:
        return _opened(file).head(name, size)
    except DataError:
        raise
    except Exception as error:  # as below
        raise DataError(f"{file.name}!{name} is broken ({error}). Make the archive again.") from error


def _opened(file: Path) -> _Archive:
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(
            f"{file} cannot be read: {error.strerror}. Check its name and its permissions."
        ) from error
    return _open(file, status.st_mtime_ns, status.st_size, os.getpid())


@lru_cache(maxsize=64)
def _open(file: Path, changed: int, size: int, process: int) -> _Archive:
    """Open an archive once per process: a child process must not share the file position of its parent."""
    try:
        return _Tar(file) if file.name.lower().endswith(SUFFIXES[1:]) else _Zip(file)
    except DataError:
        raise
    except Exception as error:  # readers can raise any exception for a broken archive
        raise DataError(f"{file} is no whole archive ({error}). Download or pack it again.") from error


class _Zip:
    def __init__(self, file: Path) -> None:
        self._zip = zipfile.ZipFile(file)
        self._infos: dict[str, zipfile.ZipInfo] = {}
        found = []
        for info in self._zip.infolist():
            name = _zip_name(info)
            if info.is_dir() or name.endswith("/"):
                continue
            trouble = _trouble(name, info.file_size, info.compress_size)
            trouble = trouble or ("is encrypted" if info.flag_bits & 1 else "")
            trouble = trouble or ("has the same name as another member" if name in self._infos else "")
            found.append(Member(name, info.file_size, trouble))
            if not trouble:
                self._infos[name] = info
        self.members = tuple(sorted(found, key=lambda member: natural(member.name)))
        _refuse_bomb(file, sum(member.size for member in found))

    def read(self, name: str) -> bytes:
        return self._zip.read(self._infos[name])

    def head(self, name: str, size: int) -> bytes:
        with self._zip.open(self._infos[name]) as member:
            return member.read(size)


class _Tar:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = Lock()
        self._packed = _gzip(file) if file.name.lower().endswith("gz") else None
        self._spans: dict[str, tuple[int, int]] = {}
        found = []
        with tarfile.open(file, "r:") if self._packed is None else tarfile.open(fileobj=self._packed) as tar:
            for info in self._walk(tar):
                name = info.name.removeprefix("./")
                trouble = _trouble(name, info.size, info.size)
                trouble = trouble or ("is a link" if not info.isreg() else "")
                trouble = trouble or ("has the same name as another member" if name in self._spans else "")
                found.append(Member(name, info.size, trouble))
                if not trouble:
                    self._spans[name] = (info.offset_data, info.size)
        self.members = tuple(sorted(found, key=lambda member: natural(member.name)))

    def _walk(self, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        for info in tar:
            if self._packed is not None:  # refuse before the reader decompresses the size in the header
                _refuse_bomb(self._file, info.offset_data + info.size)
            if not info.isdir():
                yield info

    def read(self, name: str) -> bytes:
        return self._span(*self._spans[name])

    def head(self, name: str, size: int) -> bytes:
        start, whole = self._spans[name]
        return self._span(start, min(size, whole))

    def _span(self, start: int, size: int) -> bytes:
        if self._packed is None:
            with self._file.open("rb") as plain:
                return _exactly(plain, start, size)
        with self._lock:
            return _exactly(self._packed, start, size)


def _gzip(file: Path) -> IO[bytes]:
    """Open a gzip file for random access, with an index of its blocks in memory."""
    library: Any = import_module("indexed_gzip")  # imported only for .tar.gz files
    opened: IO[bytes] = library.IndexedGzipFile(filename=str(file), drop_handles=True)
    return opened


def _exactly(file: IO[bytes], start: int, size: int) -> bytes:
    file.seek(start)
    data = file.read(size)
    if len(data) != size:
        raise EOFError("its end is missing")
    return data


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name; old Chinese and Japanese tools did not state its encoding."""
    name = info.orig_filename if "\\" in info.orig_filename else info.filename
    if not info.flag_bits & 0x800:  # the name is not marked as UTF-8: Python decoded it as code page 437
        raw = name.encode("cp437", "replace")
        for code in ("utf-8", "gb18030"):
            try:
                name = raw.decode(code)
                break
            except UnicodeDecodeError:
                continue
    return name.replace("\\", "/")


def _trouble(name: str, size: int, packed: int) -> str:
    parts = name.split("/")
    if printable(name) != name:
        return "has a name that is no UTF-8: rename it"
    if name.startswith("/") or ".." in parts or (len(parts[0]) == 2 and parts[0][1] == ":"):
        return "has a name that leads out of the archive"
    if size > MOST_BYTES:
        return f"would be {size:,} bytes, too large for an image"
    if size > _SMALL and size > _RATIO * max(1, packed):
        return f"would swell to {size // max(1, packed):,} times its size, as only a zip bomb does"
    return ""


def _refuse_bomb(file: Path, total: int) -> None:
    packed = file.stat().st_size
    if total > max(_TOTAL, _TOTAL_RATIO * packed):
        raise DataError(
            f"{file} would swell to {total // packed:,} times its size, as only a bomb does. Do not open it."
        )
