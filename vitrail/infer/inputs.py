"""What a user names when asking a model: files, folders, patterns, archives, standard input, one image each."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vitrail.core.errors import DataError
from vitrail.core.text import printable
from vitrail.data import archives, own_outputs
from vitrail.data.labels import count, natural, shorten
from vitrail.data.walk_files import head_of, hidden_note, is_hidden, is_image_at, walk

_HEAD = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """An image by name: a file, a member of an archive, or bytes that came through standard input.

    `name` can be printed anywhere; `trouble` is the sentence that says why it cannot be read, where that is known;
    `below` is the path inside the folder or archive that was named, "" for an image named itself.
    """

    name: str
    path: Path | None = None
    member: str = ""
    data: bytes = b""
    trouble: str = ""
    below: str = ""

    @property
    def called(self) -> str:
        """What messages call it."""
        return "The image from standard input" if self.name == "-" else self.name

    def open(self) -> Path | bytes:
        """Return what `decode` reads; DataError where it is not there or broken."""
        if self.trouble:
            raise DataError(self.trouble)
        if self.path is None:
            return self.data
        return archives.read_member(self.path, self.member) if self.member else self.path

    def fetched(self) -> Source:
        """Return the same image with its bytes in memory; one that cannot be read stays, and says so when opened."""
        if self.path is None or self.trouble:
            return self
        try:
            found = self.open()
            data = found.read_bytes() if isinstance(found, Path) else found
        except (OSError, DataError):
            return self
        return replace(self, path=None, member="", data=data)


def _hush(line: str) -> None:
    """Say nothing."""


def expand(
    names: Iterable[str], standard_input: bytes | None = None, say: Callable[[str], None] = _hush
) -> Iterator[Source]:
    """Yield the images that files, folders, patterns, archives and "-" (standard input) stand for.

    A name that stands for no image at all gives a source with that trouble; what is left out of a folder or an
    archive, hidden files and links that lead nowhere, is handed to `say`.

    Raises:
        DataError: it was the only one.
    """
    asked = list(names)
    for name in asked:
        try:
            yield from _standing_for(name, standard_input, say)
        except (DataError, OSError) as error:
            said = printable(name)
            trouble = (
                DataError(f"{said} cannot be read: {error.strerror}. Check its name and permissions.")
                if isinstance(error, OSError)
                else error
            )
            if len(asked) == 1:
                raise trouble from error
            yield Source(said, trouble=str(trouble))


def _standing_for(name: str, standard_input: bytes | None, say: Callable[[str], None]) -> Iterator[Source]:
    path = Path(name)
    if name == "-":
        yield from _from_bytes(standard_input or b"", say)
    elif path.is_dir():
        yield from _from_folder(path, say)
    elif path.is_file() and (archives.is_archive(path.name) or zipfile.is_zipfile(path)):
        yield from _from_archive(path, say)
    elif path.exists() or not any(sign in name for sign in "*?["):
        yield Source(printable(name), path)
    else:
        yield from _from_pattern(name)


def _from_folder(path: Path, say: Callable[[str], None]) -> Iterator[Source]:
    """Yield the images of a folder as a check finds them; what may not be opened is said in its place."""
    found = walk(path)
    drawn = own_outputs.figures(found.files, lambda name: head_of(path, name, own_outputs.HEAD))
    left = set(drawn)
    files = [path / name for name in found.files if name not in left and is_image_at(path, name)]
    closed = [path / name for name in found.closed]
    if not files and not closed:
        aside = f" but {count(len(drawn), 'figure')} that vitrail drew: {shorten(drawn)}" if drawn else ""
        raise DataError(f"{path} holds no images{aside}. Name a folder with images in it.")
    for line in (*found.notes(), *own_outputs.figure_note(drawn)):
        say(line)
    for file in [*files, *(path / os.fsdecode(name) for name in found.foreign)]:
        yield replace(_file(file), below=file.relative_to(path).as_posix())
    for one in closed:
        shown = printable(str(one))
        yield Source(
            shown, one, trouble=f"{shown} may not be opened. Change its permissions: chmod -R u+rX {shown}."
        )


def _file(path: Path) -> Source:
    return Source(printable(str(path)), path)


def _by_name(path: Path) -> Any:
    return natural(path.as_posix())


def _from_pattern(pattern: str) -> Iterator[Source]:
    anchor = Path(pattern).anchor
    found = sorted(Path(anchor or ".").glob(pattern.removeprefix(anchor)), key=_by_name)
    files = [path for path in found if path.is_file()]
    if not found:
        raise DataError(f"Nothing is called like {pattern!r}. Check the pattern.")
    if not files:
        raise DataError(
            f"Only folders are called like {pattern!r}. Name the folders, or the images in them: "
            f"{pattern.rstrip('/') + '/*'!r}."
        )
    yield from map(_file, files)


def _from_archive(path: Path, say: Callable[[str], None]) -> Iterator[Source]:
    """Yield the images of an archive; what is wrong with one of them, or with all of it, is said in its place."""
    try:
        members = archives.members(path)
    except DataError as error:
        yield Source(printable(str(path)), path, trouble=str(error))
        return
    pictures = [
        m
        for m in members
        if not is_hidden(m.name) and (m.trouble or is_image_at(path.parent, f"{path.name}!{m.name}"))
    ]
    if not pictures:
        raise DataError(f"{path} holds no images. Name an archive with images in it.")
    for line in hidden_note([m.name for m in members if is_hidden(m.name)]):
        say(line)
    for member in pictures:
        name = printable(f"{path}!{member.name}")
        trouble = f"{name} {member.trouble}. Pack the archive again so that it can be read."
        yield Source(name, path, member.name, trouble=trouble if member.trouble else "", below=member.name)


def _from_bytes(data: bytes, say: Callable[[str], None]) -> Iterator[Source]:
    """Standard input is one image, or a list of names, one a line, in whatever code the file system has."""
    if not data:
        raise DataError("Nothing came through standard input. Pipe an image, or names of images, one a line.")
    first = data[:_HEAD].partition(b"\n")[0]
    if b"\0" not in data[:_HEAD] and Path(os.fsdecode(first).strip()).suffix:
        yield from expand([line.strip() for line in os.fsdecode(data).split("\n") if line.strip()], None, say)
    else:
        yield Source("-", data=data)
