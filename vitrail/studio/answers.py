"""What a model answers about a picture, and where it looked, for pages. No task is known here.

A prediction that ranks labels (`top`) is shown as bars; any other is drawn by its task, with its rows as a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vitrail.core.errors import VitrailError
from vitrail.studio.pictures import Picture

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.explainers.explanation import Explanation, ImageExplainer
    from vitrail.infer.predictor import Predictor

BARS = 5
"""Number of labels that are shown with their probability."""

NONE_OF_THESE = "none of these"
"""The first bar of a prediction that is of none of the classes."""

ROWS = 12
"""Number of rows of a prediction that a page shows."""

WIDTH = 720
"""Longest side of a heat map in pixels."""


class Answer(NamedTuple):
    """The answer for one picture: its text, and bars or rows; or why the picture cannot be read.

    `remarks` are sentences of the task that explain its numbers.
    """

    picture: Picture
    text: str = ""
    bars: tuple[tuple[str, float], ...] = ()
    rows: tuple[Mapping[str, Any], ...] = ()
    error: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file name of the picture."""
        return self.picture.path.name

    @property
    def drawn(self) -> bool:
        """Whether the task draws the answer on the picture."""
        return not self.bars and not self.error


class Views(NamedTuple):
    """What can be shown of where a network looked: the heat maps that fit it, and its attention; or why nothing."""

    methods: tuple[str, ...] = ()
    attention: bool = False
    why: str = ""


def answers(predictor: Predictor, pictures: Sequence[Picture]) -> list[Answer]:
    """Return the answers of a model for pictures, in order; one that cannot be read has an error."""
    from vitrail.infer.inputs import Source
    from vitrail.tasks.abstention import Abstaining
    from vitrail.tasks.base import Ask

    task = predictor.task
    remarks = tuple(task.remarks(Ask(), novel=True)) if isinstance(task, Abstaining) else ()
    sources = [Source(one.path.name, one.path) for one in pictures]
    found = predictor.answers(sources)
    return [
        _answer(one, told.prediction, told.error, remarks) for one, told in zip(pictures, found, strict=True)
    ]


def _answer(picture: Picture, prediction: Any, error: str, remarks: tuple[str, ...]) -> Answer:
    if error:
        return Answer(picture, error=error)
    top, rows = getattr(prediction, "top", None), getattr(prediction, "rows", None)
    if top is not None:
        novel = getattr(prediction, "none_of_these", None)
        first = ((NONE_OF_THESE, prediction.unlike),) if novel else ()
        return Answer(picture, str(prediction), (*first, *top(BARS)), remarks=remarks if novel else ())
    return Answer(picture, str(prediction), rows=tuple((rows() if rows is not None else [])[:ROWS]))


def views_of(predictor: Predictor) -> Views:
    """Return what can be shown of where a network looked."""
    from vitrail.explainers.methods import compatible_methods

    if predictor.preprocess.zoom is not None:
        return Views(why="This model looks through sliding windows, so there is no map of the whole image.")
    fit = compatible_methods(predictor.network)
    viewer = "attention" in fit and not predictor.preprocess.frames  # it shows one picture
    return Views(tuple(name for name in fit if name != "attention"), viewer)


def drawing(predictor: Predictor, path: Path) -> Image:
    """Return a picture with the answer drawn on it by the task."""
    from vitrail import plots

    image = predictor.decoded(path)
    shown = plots.of_array(predictor.preprocess.visible(image))
    return predictor.task.render(shown, predictor([image])[0])


def heat_map(look: ImageExplainer, method: str, of: str | None) -> Image:
    """Return the picture with the heat map of a method on it."""
    from vitrail import plots

    found = look.explain(method, of)
    if found.times:
        return found.figure(2 * WIDTH)
    small = found.original()
    small.thumbnail((WIDTH, WIDTH))
    return found.marked(plots.heat(plots.shown(small), found.heat))


def tested_map(look: ImageExplainer, method: str, of: str | None) -> Explanation:
    """Return the explanation of a method with the result of its tests."""
    return look.test(look.explain(method, of))


def chosen(look: ImageExplainer, of: str) -> str | None:
    """Return the choice to explain; None for the answer itself, also if there is no such choice."""
    try:
        look.subject(of or None)
    except VitrailError:
        return None
    return of or None
