"""Clips: class/*.mp4, a table or list of videos, or folders of frames (`--layout clips`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from vitrail.core import catalog
from vitrail.data.labels import count, shorten
from vitrail.data.layouts.base import CLIPS, Entry, Layout, Tree
from vitrail.data.layouts.clip_cuts import cut
from vitrail.data.layouts.clip_files import as_clips, folders_of_frames, videos_of
from vitrail.data.layouts.decide import Look, decide
from vitrail.data.layouts.split_lists import with_lists
from vitrail.data.layouts.table import is_text
from vitrail.data.parts import frames_part
from vitrail.data.videos import SUFFIXES

_RECORDING = (
    re.compile(r"v_.+_(g\d+)_c\d+", re.IGNORECASE),  # UCF101: v_Archery_g01_c02
    re.compile(r"(.{11})_\d{6}_\d{6}"),  # Kinetics: the letters of an address, from and to which second
)
"""Names of clips that say from which recording they are."""

_ONE = frozenset(("folders", "table", "filenames"))
"""Layouts that may be asked for by name where a source has videos and no images."""


def look(tree: Tree) -> Layout | None:
    """Read the videos of a source as other layouts read its images; None if it has none, or more images.

    Folders of frames are clips only if the option `layout` says so.

    Raises:
        DataError: there is only one class, labels cannot be read, or videos are to be cut and PyAV is not installed.
    """
    if tree.clips:
        return None
    asked = tree.options.layout == CLIPS
    around = Tree.look(tree.root, tree.options) if tree.table and (asked or _names_videos(tree)) else tree
    if not asked and (not (videos := videos_of(around)) or len(around.pictures) > len(videos)):
        return None
    taken = as_clips(around)
    if not taken.clips:
        return None
    source = replace(tree, clips=taken.clips) if tree.table else replace(taken, wanted=tree.wanted)
    reading = _reading(source)
    if reading is None:
        return None
    reading = reading if tree.table else with_lists(source, reading)
    folders = {} if videos_of(around) else folders_of_frames(around)
    lengths = {taken.files[folder]: len(names) for folder, names in folders.items()}
    entries = [_whole(entry, lengths) for entry in reading.found]
    entries, tied = _grouped(entries, tree.options.groups)
    entries, pieces = cut(tree.root, entries, tree.options.seconds)
    notes = (*reading.notes, *tied, *pieces, *([] if tree.table else _aside(around, taken)))
    return replace(reading, name=CLIPS, found=tuple(entries), notes=notes)


def _names_videos(tree: Tree) -> bool:
    """Return whether a table may name videos; one that is not text has to be read to know."""
    text = tree.read(tree.table).lower() if is_text(tree.table) else b"".join(map(str.encode, SUFFIXES))
    return any(suffix.encode() in text for suffix in SUFFIXES)


def _reading(tree: Tree) -> Layout | None:
    asked = tree.options.layout if tree.options.layout in _ONE else ""
    name = "table" if tree.options.labels or tree.table else asked
    look: Look = catalog.load("layout", name) if name else decide
    return look(tree)


def _whole(entry: Entry, lengths: dict[str, int]) -> Entry:
    """Return the entry of a whole clip: a folder of frames has a part, and its length."""
    length = lengths.get(entry.path, 0)
    return entry._replace(part=frames_part(0, length)) if length else entry


def _grouped(entries: Sequence[Entry], asked: str) -> tuple[list[Entry], list[str]]:
    """Return the entries with groups: that of a table, else the recording named by all names, else the file."""
    named = {entry.id: _recording(entry.path) for entry in entries if not entry.trouble}
    told = asked != "none" and bool(named) and all(named.values())
    tied = [entry if entry.group else entry._replace(group=_group(entry, named, told)) for entry in entries]
    if not told or any(entry.group for entry in entries):
        return tied, []
    number = count(len(set(named.values())), "recording")
    first = min(named.values())
    return tied, [
        f"The names tell of {number} ({first}): clips of one stay in one split. Leave it: --groups none"
    ]


def _group(entry: Entry, named: dict[str, str], told: bool) -> str:
    return named.get(entry.id, "") if told else "" if entry.trouble else entry.path


def _recording(path: str) -> str:
    """Return the recording from which a clip is, as its name tells, or ""."""
    stem = PurePosixPath(path.rpartition("!")[2]).stem
    matches = (rule.fullmatch(stem) for rule in _RECORDING)
    return next((match[1] for match in matches if match), "")


def _aside(around: Tree, taken: Tree) -> list[str]:
    """Return a note on the images of a source that are no clips."""
    images = [name for name in around.pictures if name in taken.files]
    if not images:
        return []
    what = f"{count(len(images), 'image')} left aside: {shorten(images)}."
    return [f"{what} Images and videos are not mixed; to take the images: move the videos to another folder."]
