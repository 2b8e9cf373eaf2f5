"""Answers as files: each picture with its answer drawn on it, and what files an answer has of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from vitrail import plots
from vitrail.core.files import make_folder
from vitrail.core.files import replace as replace_file
from vitrail.data.decode import preview
from vitrail.infer.predictor import Answer, Predictor
from vitrail.infer.sources import Source


@dataclass(frozen=True)
class Told:
    """What is left of a prediction whose pixels are written: its words, its plain data and its rows."""

    words: str
    plain: dict[str, Any]
    lines: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return the plain data."""
        return self.plain

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of a table of answers."""
        return self.lines

    def __str__(self) -> str:
        return self.words


def told(answer: Answer) -> Answer:
    """Return an answer without its pixels; one without rows, or an error, as it is."""
    prediction = answer.prediction
    if answer.error or not hasattr(prediction, "rows"):
        return answer
    return replace(answer, prediction=Told(str(prediction), prediction.to_dict(), prediction.rows()))


@dataclass
class Drawing:
    """A folder that takes the files of answers; two pictures of one name get two files."""

    predictor: Predictor
    folder: Path
    count: int = 0
    taken: set[str] = field(default_factory=set)

    def write(self, source: Source, answer: Answer) -> None:
        """Write the picture with its answer, and the answer's own files."""
        make_folder(self.folder)
        stem = self._free(
            "standard-input" if source.name == "-" else Path(source.name.rpartition("!")[2]).stem
        )
        image = self.predictor.decoded(source)
        seen = preview(image) if self.predictor.preprocess.raw else image
        drawn = self.predictor.task.render(plots.of_array(seen), answer.prediction)
        plots.write_picture(self.folder / f"{stem}.png", drawn)
        files: Mapping[str, bytes] = getattr(answer.prediction, "files", dict)()
        for ending, data in files.items():
            replace_file(self.folder / f"{stem}{ending}", partial(_write, data))
        self.count += 1 + len(files)

    def _free(self, stem: str) -> str:
        name, turn = stem, 1
        while name in self.taken:
            turn += 1
            name = f"{stem}-{turn}"
        self.taken.add(name)
        return name


def _write(data: bytes, path: Path) -> None:
    path.write_bytes(data)
