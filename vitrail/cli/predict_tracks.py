"""vitrail predict --track: the objects of a clip, followed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitrail.infer.inputs import Source
    from vitrail.infer.predict_options import AnswerOptions
    from vitrail.infer.predictor import Predictor
    from vitrail.infer.tracked_clips import TrackedClip

IDLE = ("latency", "sets", "tiles", "reference", "coco", "yolo")
"""Options that say nothing about a clip that is followed."""


def predict_tracks(
    predictor: Predictor,
    clips: Sequence[str],
    options: AnswerOptions,
    json: bool,
    csv: str | None,
    out: str | None,
) -> int:
    """Follow the objects of clips; write a table, videos with boxes, or print JSON."""
    from vitrail.cli.output import print_json, say, table, unread
    from vitrail.infer.tracked_clips import refuse_untracked
    from vitrail.tasks.ask import asked_of

    _refuse_idle(options)
    refuse_untracked(predictor)
    asked_of(predictor.task, options.threshold)
    done = list(_tracked(predictor, _sources(clips), options.threshold, out))
    if csv:
        _write(csv, done)
        say(f"{sum(len(one.rows) for one in done)} rows written to {csv}")
    for one in done:
        for note in one.notes:
            say(f"{one.path}: {note}")
        if one.video:
            say(f"video   {one.video}")
    if json:
        print_json([one.to_dict() for one in done])
    else:
        rows = [[one.path, one.error or str(one)] for one in done]
        sys.stdout.write(table(["clip", "answer"], rows) + "\n")
    failed = sum(bool(one.error) for one in done)
    if failed:
        say(unread(failed, len(done)).replace("image", "clip"))
    return 1 if failed else 0


def _refuse_idle(options: AnswerOptions) -> None:
    """Raise a UsageError for options that would have no effect with --track."""
    from vitrail.core.errors import UsageError

    for name in IDLE:
        if getattr(options, name) not in (None, False):
            raise UsageError(f"--{name} does not go with --track. Leave one of them out.")


def _sources(clips: Sequence[str]) -> list[Source]:
    from vitrail.cli.output import say
    from vitrail.core.errors import UsageError
    from vitrail.infer.inputs import expand

    if "-" in clips:
        raise UsageError("--track reads clips from files, not from standard input. Name them.")
    return list(expand(clips, None, say, clips=True))


def _tracked(
    predictor: Predictor, sources: Sequence[Source], threshold: float | None, out: str | None
) -> Iterator[TrackedClip]:
    from vitrail.core.files import make_folder
    from vitrail.infer.tracked_clips import place_of, track

    taken: set[Path] = {one.path.resolve() for one in sources if one.path is not None}
    for source in sources:
        video = None
        if out is not None:
            video = _free(place_of(source, Path(out)), taken)
            make_folder(video.parent)
        yield track(predictor, source, threshold, video)


def _free(place: Path, taken: set[Path]) -> Path:
    """Return a path that no clip of this command has, with a number appended if needed."""
    free, turn = place, 1
    while free.resolve() in taken:
        turn += 1
        free = place.with_stem(f"{place.stem}-{turn}")
    taken.add(free.resolve())
    return free


def _write(path: str, done: Sequence[TrackedClip]) -> None:
    """Write one row an object and frame, atomically; a clip that cannot be read is a row with its error."""
    import csv

    from vitrail.core.files import replace
    from vitrail.infer.tracked_clips import COLUMNS

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, ["path", *COLUMNS, "error"])
            writer.writeheader()
            for one in done:
                writer.writerows({"path": one.path, **row} for row in one.rows)
                if one.error:
                    writer.writerow({"path": one.path, "error": one.error})

    replace(Path(path), write)
