"""Write predictions as label files that other programs read, so that people correct labels instead of drawing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vitrail.core.errors import SettingError
from vitrail.core.files import refuse_unwritable
from vitrail.data.labels import count
from vitrail.infer.inputs import Source
from vitrail.infer.predictor import Answer
from vitrail.tasks.base import Task


@dataclass
class LabelFiles:
    """Predictions to be written as labels; `places` are formats, "coco" and "yolo", and where each is written."""

    task: Task[Any, Any]
    places: Mapping[str, str | None]
    answers: list[tuple[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Raise a SettingError for a task whose predictions are no such labels; a RunError for an unwritable place."""
        self.places = {form: place for form, place in self.places.items() if place is not None}
        if self.places and not hasattr(self.task, "write_labels"):
            form = next(iter(self.places))
            raise SettingError(f"The task {self.task.name} predicts no boxes. Remove --{form}.")
        if (file := self.places.get("coco")) is not None:
            refuse_unwritable(Path(file))

    def add(self, source: Source, answer: Answer) -> None:
        """Keep the prediction of an image, if it is to be written."""
        if self.places and not answer.error:
            self.answers.append((source.below or PurePosixPath(source.name).name, answer.prediction))

    def write(self, say: Callable[[str], None]) -> None:
        """Write all files, and say so; RunError if the disk is full or not writable."""
        task: Any = self.task
        for form, place in self.places.items():
            assert place is not None
            task.write_labels(form, Path(place), self.answers)
            say(f"labels of {count(len(self.answers), 'image')} written to {place}")
