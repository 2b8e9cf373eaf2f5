"""Clips in which every object keeps its number: as rows, as plain data, and as a video with boxes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError, SettingError
from vitrail.data.labels import count
from vitrail.data.videos import VideoFacts, frames_of, is_video, video_facts, write_video
from vitrail.infer.inputs import Source
from vitrail.infer.predictor import Predictor, Request
from vitrail.infer.tracking import LOW, Tracked, Tracker
from vitrail.plots import DrawnBox, distinct_colours, of_array
from vitrail.plots.tracks import COLOURS, draw_tracks
from vitrail.tasks.base import Ask
from vitrail.tasks.detect.prediction import CORNERS, Objects

AT_ONCE = 8
"""Frames that are computed together."""

COLUMNS = ("frame", "seconds", "id", "class", "score", *CORNERS)
"""The columns of a table of objects in frames."""


class Seen(NamedTuple):
    """A frame with its objects: its number from 0, its time in seconds, what was found, and who of it is followed."""

    number: int
    seconds: float
    objects: Objects
    tracked: Sequence[Tracked]

    def rows(self) -> list[dict[str, Any]]:
        """Return one row an object: frame, seconds, id, class, score, and corners in pixels."""
        found, names = self.objects.found, self.objects.names
        return [
            {
                "frame": self.number,
                "seconds": round(self.seconds, 3),
                "id": one.id,
                "class": names[found.kinds[one.place]],
                "score": round(float(found.scores[one.place]), 6),
                **{
                    side: round(float(at), 2) for side, at in zip(CORNERS, found.xyxy[one.place], strict=True)
                },
            }
            for one in self.tracked
        ]


@dataclass
class TrackedClip:
    """What was followed through a clip: its rows, or why it cannot be read, and the video that was drawn."""

    path: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    frames: int = 0
    seconds: float = 0.0
    error: str = ""
    video: str = ""
    notes: tuple[str, ...] = ()

    def objects(self) -> list[dict[str, Any]]:
        """Return one row an object: id, class, the seconds at which it was seen first and last, and frames."""
        found: dict[int, dict[str, Any]] = {}
        for row in self.rows:
            at = row["seconds"]
            new = {"id": row["id"], "class": row["class"], "first": at, "last": at, "frames": 0}
            one = found.setdefault(row["id"], new)
            one["last"], one["frames"] = at, one["frames"] + 1
        return [found[id] for id in sorted(found)]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        if self.error:
            return {"path": self.path, "error": self.error}
        return {
            "path": self.path,
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "objects": self.objects(),
            "boxes": self.rows,
            "notes": list(self.notes),
            **({"video": self.video} if self.video else {}),
        }

    def __str__(self) -> str:
        kinds: dict[str, int] = {}
        for one in self.objects():
            kinds[one["class"]] = kinds.get(one["class"], 0) + 1
        what = ", ".join(f"{number} x {name}" for name, number in kinds.items())
        return f"{what or 'nothing found'} in {count(self.frames, 'frame')}"


def refuse_untracked(predictor: Predictor) -> None:
    """Raise a SettingError if a model finds no boxes that could be followed."""
    if not predictor.task.finds_objects:
        raise SettingError(
            f"--track follows the boxes of a detector, and this model was trained for {predictor.task.name}. Name a "
            "run of --task detect or instances, or leave --track out."
        )


def track(predictor: Predictor, source: Source, threshold: float | None, video: Path | None) -> TrackedClip:
    """Follow the objects of a clip, and write it with its boxes to `video`; what cannot be read is its `error`."""
    clip = TrackedClip(source.name)
    try:
        facts = _facts(source)
        clip.notes = facts.notes
        seen = _noted(_seen(predictor, source, threshold, facts.rate), clip)
        if video is None:
            for _ in seen:
                pass
        else:
            write_video(video, (_drawn(frame, one) for frame, one in seen), facts.rate)
            clip.video = video.as_posix()
    except (DataError, OSError) as error:
        return TrackedClip(source.name, error=str(error))
    return clip


def _facts(source: Source) -> VideoFacts:
    """Return facts about a clip; DataError if it is none."""
    if not is_video(source.member or source.name):
        raise DataError(
            f"{source.called} is no video by its name, and --track follows objects through one. Name a video, or "
            "leave --track out."
        )
    return video_facts(source.open(), name=source.name)


def _noted(
    seen: Iterable[tuple[NDArray[np.uint8], Seen]], clip: TrackedClip
) -> Iterator[tuple[NDArray[np.uint8], Seen]]:
    """Pass the frames on, and write what was seen in them into the clip."""
    for frame, one in seen:
        clip.rows += one.rows()
        clip.frames, clip.seconds = clip.frames + 1, one.seconds
        yield frame, one


def _seen(
    predictor: Predictor, source: Source, threshold: float | None, rate: float
) -> Iterator[tuple[NDArray[np.uint8], Seen]]:
    task: Any = predictor.task
    high = task.settings.threshold if threshold is None else threshold
    request = Request(predictor.point, ask=Ask(threshold=LOW * high))
    tracker, number = Tracker(high, rate), 0
    frames = iter(frames_of(source.open(), name=source.name))
    while some := list(islice(frames, AT_ONCE)):
        answers = predictor.predict([frame for _, frame in some], request)
        for (seconds, frame), objects in zip(some, answers, strict=True):
            yield frame, Seen(number, seconds, objects, tracker.update(seconds, objects.found))
            number += 1


def _drawn(frame: NDArray[np.uint8], seen: Seen) -> NDArray[np.uint8]:
    """Return a frame with its objects: uint8 (height, width, 3)."""
    colours = distinct_colours(COLOURS)
    found, names = seen.objects.found, seen.objects.names
    boxes = []
    for one in seen.tracked:
        left, top, right, bottom = found.xyxy[one.place].tolist()
        text = f"{one.id} {names[found.kinds[one.place]]}"
        shape = seen.objects.outlines(one.place)
        boxes.append(DrawnBox((left, top, right, bottom), text, colours[one.id % COLOURS], shape=shape))
    return np.asarray(draw_tracks(of_array(frame), boxes))


def place_of(source: Source, folder: Path) -> Path:
    """Return where the video with boxes of a clip is written: its name in the folder, with .tracked.mp4."""
    name = PurePosixPath(source.below or PurePosixPath(source.member or source.name).name)
    parts = [part for part in name.with_suffix("").parts if part not in ("/", "..")]
    return folder / Path(*parts[:-1]) / f"{parts[-1]}.tracked.mp4"
