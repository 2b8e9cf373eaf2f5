"""Expand the image arguments of a command: files, folders, patterns, archives and standard input."""

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
from vitrail.data.frame_folders import numbered_folders
from vitrail.data.labels import count, is_image, natural, shorten
from vitrail.data.videos import is_video
from vitrail.data.walk_files import head_of, hidden_note, is_hidden, is_image_at, walk

_HEAD = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """An image by name: a file, a member of an archive, or bytes from standard input.

    `name` is printable; `trouble` is a sentence that says why the image cannot be read, if this is known already;
    `below` is the path inside the folder or archive that the user named, "" for an image that the user named itself.
    """

    name: str
    path: Path | None = None
    member: str = ""
    data: bytes = b""
    trouble: str = ""
    below: str = ""

    @property
    def called(self) -> str:
        """The name of the image in messages."""
        return "The image from standard input" if self.name == "-" else self.name

    def open(self) -> Path | bytes:
        """Return a path or bytes for `decode`; DataError if the image is missing or broken."""
        if self.trouble:
            raise DataError(self.trouble)
        if self.path is None:
            return self.data
        return archives.read_member(self.path, self.member) if self.member else self.path

    def fetched(self) -> Source:
        """Return the image with its bytes in memory; one that cannot be read is returned unchanged."""
        if self.path is None or self.trouble:
            return self
        try:
            opened = self.open()
            data = opened.read_bytes() if isinstance(opened, Path) else opened
        except (OSError, DataError):
            return self
        return replace(self, path=None, member="", data=data)


def _silent(line: str) -> None:
    """Ignore a message."""


def expand(
    names: Iterable[str],
    standard_input: bytes | None = None,
    say: Callable[[str], None] = _silent,
    *,
    clips: bool = False,
) -> Iterator[Source]:
    """Yield the images of files, folders, patterns, archives and "-" (standard input), or with `clips` their videos.

    For clips, a folder of numbered images is one clip, if there are no videos. A name without any image yields a source
    with an error message. Notes on files that are skipped in a folder or an archive (hidden files, broken links) are
    passed to `say`.

    Raises:
        DataError: the only name has no image.
    """
    entries = list(names)
    for name in entries:
        try:
            yield from _expand_name(name, standard_input, say, clips)
        except (DataError, OSError) as error:
            shown = printable(name)
            trouble: DataError
            if isinstance(error, OSError):
                trouble = DataError(
                    f"{shown} cannot be read: {error.strerror}. Check its name and permissions."
                )
            else:
                trouble = error
            if len(entries) == 1:
                raise trouble from error
            yield Source(shown, trouble=str(trouble))


def _expand_name(
    name: str, standard_input: bytes | None, say: Callable[[str], None], clips: bool
) -> Iterator[Source]:
    path = Path(name)
    if name == "-":
        yield from _from_bytes(standard_input or b"", say, clips)
    elif path.is_dir():
        yield from _clips_of_folder(path, say) if clips else _from_folder(path, say)
    elif path.is_file() and (archives.is_archive(path.name) or zipfile.is_zipfile(path)):
        yield from _from_archive(path, say, clips)
    elif path.exists() or not any(sign in name for sign in "*?["):
        yield Source(printable(name), path)
    else:
        yield from _from_pattern(name)


def _from_folder(path: Path, say: Callable[[str], None]) -> Iterator[Source]:
    """Yield the images of a folder as `vitrail check` does; an unreadable subfolder yields a source with an error."""
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
            shown, one, trouble=f"{shown} cannot be opened. Change its permissions: chmod -R u+rX {shown}."
        )


def _clips_of_folder(path: Path, say: Callable[[str], None]) -> Iterator[Source]:
    """Yield the videos of a folder, or without any, its folders of frames."""
    found = walk(path)
    files = [name for name in found.files if is_video(name)]
    names = files or numbered_folders(name for name in found.files if is_image(name))
    if not names:
        raise DataError(
            f"{path} holds no videos and no folders of numbered frames. This model takes clips: name a folder with "
            "videos in it."
        )
    images = [name for name in found.files if files and is_image(name)]
    aside = [f"{count(len(images), 'image')} left aside, the model takes clips: {shorten(images)}."]
    for line in (*found.notes(), *(aside if images else [])):
        say(line)
    yield from (replace(_file(path / name), below=name) for name in names)


def _file(path: Path) -> Source:
    return Source(printable(str(path)), path)


def _by_name(path: Path) -> Any:
    return natural(path.as_posix())


def _from_pattern(pattern: str) -> Iterator[Source]:
    anchor = Path(pattern).anchor
    found = sorted(Path(anchor or ".").glob(pattern.removeprefix(anchor)), key=_by_name)
    files = [path for path in found if path.is_file()]
    if not found:
        raise DataError(f"No file matches {pattern!r}. Check the pattern.")
    if not files:
        raise DataError(
            f"Only folders match {pattern!r}. Name the folders, or the images in them: "
            f"{pattern.rstrip('/') + '/*'!r}."
        )
    yield from map(_file, files)


def _from_archive(path: Path, say: Callable[[str], None], clips: bool) -> Iterator[Source]:
    """Yield the images of an archive; a broken member, or a broken archive, yields a source with an error."""
    try:
        members = archives.members(path)
    except DataError as error:
        yield Source(printable(str(path)), path, trouble=str(error))
        return

    def is_input(name: str) -> bool:
        return is_video(name) if clips else is_image_at(path.parent, f"{path.name}!{name}")

    pictures = [m for m in members if not is_hidden(m.name) and (m.trouble or is_input(m.name))]
    if not pictures:
        noun = "videos" if clips else "images"
        raise DataError(f"{path} holds no {noun}. Name an archive with {noun} in it.")
    for line in hidden_note([m.name for m in members if is_hidden(m.name)]):
        say(line)
    for member in pictures:
        name = printable(f"{path}!{member.name}")
        trouble = f"{name} {member.trouble}. Pack the archive again so that it can be read."
        yield Source(name, path, member.name, trouble=trouble if member.trouble else "", below=member.name)


def _from_bytes(data: bytes, say: Callable[[str], None], clips: bool) -> Iterator[Source]:
    """Standard input is one image, or a list of names, one per line, in the encoding of the file system."""
    if not data:
        raise DataError("Standard input is empty. Pipe an image, or names of images, one per line.")
    first = data[:_HEAD].partition(b"\n")[0]
    if b"\0" not in data[:_HEAD] and Path(os.fsdecode(first).strip()).suffix:
        lines = [line.strip() for line in os.fsdecode(data).split("\n") if line.strip()]
        yield from expand(lines, None, say, clips=clips)
    else:
        yield Source("-", data=data)
