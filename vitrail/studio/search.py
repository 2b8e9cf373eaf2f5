"""What the search of a wall finds beside names: mistakes of the newest model, doubtful labels, and similar images."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from vitrail.core.errors import VitrailError
from vitrail.studio.listing import Listing
from vitrail.studio.run_files import RunFiles
from vitrail.studio.similar_images import similar
from vitrail.tasks.result import Matrix, Shot

WRONG = frozenset(("wrong", "错", "错误"))
"""Words for the mistakes of the newest model; in quotes they are names."""

LEAST = 0.8
"""How doubtful a label is at least, if nothing else is stated."""

_DOUBT = re.compile(r"(?:doubt|doubtful|存疑)\s*(?:[>≥]=?\s*(\d*\.?\d+)\s*(%?))?")


class Found(NamedTuple):
    """The images of a search in their order; `run` is the model that judged them, `problem` why there are none."""

    kind: Literal["wrong", "doubt", "like"]
    ids: tuple[str, ...] = ()
    run: str = ""
    least: float = 0.0
    like: str = ""
    problem: Literal["", "no model", "no list", "not checked", "no features"] = ""


def found_by(text: str, runs: Callable[[], Sequence[RunFiles]]) -> Found | None:
    """Return what a text asks for; None for a name. `runs` returns the runs on the images, the newest first."""
    if text in WRONG:
        return _wrong(runs())
    match = _DOUBT.fullmatch(text)
    if match is None:
        return None
    least = LEAST if match[1] is None else float(match[1]) / (100 if match[2] else 1)
    return _doubtful(runs(), least)


def name_in(text: str) -> str:
    """Return the name that a text asks for: what stands in quotes, or all of it."""
    return text[1:-1] if len(text) > 2 and text[0] + text[-1] in {'""', "“”"} else text


def found_like(name: str, listing: Listing) -> Found:
    """Return the images most similar to one, the most similar first."""
    row = listing.row(name)
    if not row.hash:
        return Found("like", like=name, problem="not checked")
    ids = listing.alike.get(name) or similar(row, listing.rows)
    listing.alike[name] = ids
    return Found("like", ids, like=name, problem="" if ids else "no features")


def _wrong(runs: Sequence[RunFiles]) -> Found:
    for run in runs:
        mistakes = _mistakes(run)
        if mistakes is not None:
            return Found("wrong", tuple(mistakes), run.name)
    return Found("wrong", problem="no model")


def _mistakes(run: RunFiles) -> dict[str, float] | None:
    """Return the images that a run answered wrongly with its confidence, the most confident first; None if unknown."""
    try:
        result = run.result()
    except VitrailError:
        return None
    if result is None:
        return None
    wrong: dict[str, float] = {}
    for section in result.sections:
        for shot, right in _shots(section):
            if not right:
                wrong[shot.id] = shot.confidence or 0.0
    return dict(sorted(wrong.items(), key=lambda item: -item[1]))


def _shots(section: object) -> Iterator[tuple[Shot, bool]]:
    """Yield the judged images of a section, and whether each is right."""
    if isinstance(section, Matrix):
        for (truth, answer), shots in section.shots.items():
            yield from ((one, truth == answer) for one in shots)
    else:
        shots = getattr(section, "shots", ())
        yield from ((one, one.right) for one in shots if one.right is not None)


def _doubtful(runs: Sequence[RunFiles], least: float) -> Found:
    for run in runs:
        doubts = _doubts(run)
        if doubts is not None:
            chosen = sorted(
                (name for name in doubts if doubts[name] >= least), key=lambda name: -doubts[name]
            )
            return Found("doubt", tuple(chosen), run.name, least)
    return Found("doubt", least=least, problem="no list")


def _doubts(run: RunFiles) -> Mapping[str, float] | None:
    """Return how doubtful each label of a list is: by `vitrail fix`, or by a draft; None without a list."""
    lists = sorted((run.folder / "fix").glob("fix*.csv"), key=lambda path: path.stat().st_mtime)
    if lists:
        return _numbers(lists[-1])
    try:
        return {one.id: one.probability for one in run.label_errors()} or None
    except VitrailError:
        return None


def _numbers(path: Path) -> dict[str, float] | None:
    """Return the probability that each label is wrong, out of a list of `vitrail fix`; None if it is none."""
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            return {row["id"]: 1 - float(row["confidence"]) for row in csv.DictReader(handle)}
    except (OSError, KeyError, ValueError, csv.Error):
        return None
