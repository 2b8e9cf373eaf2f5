"""Write predictions as files: images with the prediction drawn on them, and files such as masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from vitrail import plots
from vitrail.core.files import make_folder
from vitrail.core.files import replace as replace_file
from vitrail.core.text import printable
from vitrail.data import own_outputs
from vitrail.infer.inputs import Source
from vitrail.infer.predictor import Answer, Predictor


@dataclass(frozen=True)
class Told:
    """A prediction without its pixels, after they were written: its text, its plain data and its rows."""

    words: str
    plain: dict[str, Any]
    lines: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return self.plain

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows for a CSV table."""
        return self.lines

    def __str__(self) -> str:
        return self.words


def told(answer: Answer, files: Mapping[str, str]) -> Answer:
    """Return an answer with file names in place of its pixels; an answer without rows, or an error, unchanged."""
    prediction = answer.prediction
    if answer.error or not hasattr(prediction, "rows"):
        return answer
    rows = [{**row, **files} for row in prediction.rows()]
    return replace(answer, prediction=Told(str(prediction), {**prediction.to_dict(), **files}, rows))


@dataclass
class Drawing:
    """Writes the files of predictions into a folder, with the same subfolders as the images.

    Two images with the same name get two files. Input images, and files that vitrail did not draw, are never
    overwritten: another name is used instead.
    """

    predictor: Predictor
    folder: Path
    sources: Iterable[Source] = ()
    count: int = 0
    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Reserve the names of all input images."""
        self.taken |= {_key(one.path) for one in self.sources if one.path is not None}

    def write(self, source: Source, answer: Answer) -> dict[str, str]:
        """Write the image with its prediction, and the files of the prediction; return their names by kind ("mask")."""
        image = self.predictor.decoded(source)
        visible = self.predictor.preprocess.visible(image)
        drawn = self.predictor.task.render(plots.of_array(visible), answer.prediction)
        files: Mapping[str, bytes] = getattr(answer.prediction, "files", dict)()
        place = self._free(self.folder / _place(source), (".png", *files))
        make_folder(place.parent)
        plots.write_image(_with(place, ".png"), drawn)
        for ending, data in files.items():
            replace_file(_with(place, ending), partial(_write, data))
        self.count += 1 + len(files)
        return {ending.split(".")[1]: _with(place, ending).as_posix() for ending in files}

    def _free(self, place: Path, endings: Sequence[str]) -> Path:
        """Return a path, with a number appended if needed, where files with all these suffixes may be written."""
        free, turn = place, 1
        while not all(self._may_be_written(_with(free, ending)) for ending in endings):
            turn += 1
            free = place.with_name(f"{place.name}-{turn}")
        self.taken |= {_key(_with(free, ending)) for ending in endings}
        return free

    def _may_be_written(self, path: Path) -> bool:
        return _key(path) not in self.taken and (not path.exists() or _is_ours(path))


def _place(source: Source) -> Path:
    """Return the output path of an image relative to the folder, without suffix."""
    if source.name == "-":
        return Path("standard-input")
    name = PurePosixPath(source.below or PurePosixPath(source.name).name)
    parts = [part for part in name.with_suffix("").parts if part not in ("/", "..")]
    return Path(*map(printable, parts))


def _with(place: Path, ending: str) -> Path:
    return place.with_name(place.name + ending)


def _key(path: Path) -> str:
    """Return a key that is equal for two names of one file, also on case-insensitive file systems."""
    return str(path.resolve()).casefold()


def _is_ours(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return own_outputs.is_figure(file.read(own_outputs.HEAD))


def _write(data: bytes, path: Path) -> None:
    path.write_bytes(data)
