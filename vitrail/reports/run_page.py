"""Build report.html: text, curves, and the sections of a result with their images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray
from PIL.Image import Image
from PIL.Image import open as open_picture

from vitrail import plots
from vitrail.core.text import clock
from vitrail.data.labels import count, shorten
from vitrail.data.loader import load_for
from vitrail.data.manifest import KEPT, Manifest
from vitrail.data.preprocess import Preprocess
from vitrail.evaluate.new_data import NewData
from vitrail.explainers.explanation import explain, method_for
from vitrail.infer.predictor import Predictor
from vitrail.pages import render
from vitrail.reports.confusion_table import cells
from vitrail.reports.curves import loss_curve, score_curve
from vitrail.reports.points_page import laid_out
from vitrail.reports.raster_map import raster_map
from vitrail.reports.thumbnails import Album
from vitrail.runs.run import Run
from vitrail.tasks.base import Task
from vitrail.tasks.probe import Doubt
from vitrail.tasks.result import (
    Bars,
    Curve,
    Gallery,
    Matrix,
    Overlays,
    Picture,
    Reliability,
    Result,
    Section,
    Shot,
    TableSection,
)

WIDTH = 520
"""Pixels of an image and its heat map side by side."""

WIDE = 3 * WIDTH
"""Pixels of truth, prediction and errors side by side."""

LARGE = 4 * WIDTH
"""Longest side, in pixels, above which an image is reduced before the heat map is drawn on it."""


def page(run: Run, manifest: Manifest, predictor: Predictor, result: Result, report: dict[str, Any]) -> str:
    """Return the page of a run: one self-contained file of a few MB that names no path of this machine."""
    classes = f" on {count(len(predictor.labels), 'class', 'classes')}" if predictor.labels else ""
    first = result.numbers.get(result.main)
    values = {
        "title": f"{report['model']}{classes}",
        "loss": loss_curve(run),
        "curve": score_curve(run, (first and first.name) or result.main),
        "live": plots.photo_uri(open_picture(run.live_path)) if run.live_path.is_file() else None,
        "subtitle": "Scored on images that were not used for training or for choosing the best epoch",
        "notes": _checked(run, manifest),
        "learnt": True,
        "clock": clock(report["seconds"]) if report["seconds"] > 120 else f"{report['seconds']:.0f} s",
    }
    return _page(_layout(manifest, predictor), result, report, values)


def page_of_new(new: NewData, predictor: Predictor, result: Result, report: dict[str, Any]) -> str:
    """Return the page for new images, without the section about training."""
    values = {
        "title": f"{report['model']} on {new.called}",
        "subtitle": "A trained model, scored on the named images",
        "notes": [*report["notes"], *_notes(new.manifest)],
        "learnt": False,
    }
    return _page(_layout(new.manifest, predictor), result, report, values)


def page_of_refit(manifest: Manifest, predictor: Predictor, result: Result, report: dict[str, Any]) -> str:
    """Return the page of a run whose head was fitted again after decisions about labels."""
    classes = f" on {count(len(predictor.labels), 'class', 'classes')}" if predictor.labels else ""
    values = {
        "title": f"{report['model']}{classes}, labels fixed",
        "subtitle": "A frozen network and a head fitted again after decisions about labels, scored on test images",
        "notes": list(_notes(manifest)),
        "learnt": False,
    }
    return _page(_layout(manifest, predictor), result, report, values)


def lay_out(manifest: Manifest, predictor: Predictor, sections: Sequence[Section]) -> list[dict[str, Any]]:
    """Return the template values of sections with the images of a manifest, for other pages (partials/<kind>.html)."""
    layout = _layout(manifest, predictor)
    return [laid for section in sections if (laid := layout(section))]


class Drawer(NamedTuple):
    """Draws predictions on images: a task, its preprocessing, and a function that predicts one image."""

    task: Task[Any, Any]
    preprocess: Preprocess
    predict: Callable[[Shot, NDArray[Any]], Any]


class DraftPage(NamedTuple):
    """Content of the page of a draft: label errors with their images (None if the task does not look for any)."""

    result: Result
    report: dict[str, Any]
    doubts: Sequence[tuple[Doubt, str]] | None
    drawer: Drawer | None


def page_of_draft(run: Run, manifest: Manifest, shown: DraftPage) -> str:
    """Return the page of a draft.

    It has no heat maps: the predictions are those of the cross-validation heads, not of the model itself.
    """
    report = shown.report
    values = {
        "title": f"A draft in {report['seconds']:.0f} seconds",
        "subtitle": "A frozen network and a linear head; each image is predicted once, by a head not trained on it",
        "notes": _checked(run, manifest),
        "learnt": False,
        "draft": True,
        "doubts": shown.doubts,
    }
    return _page(_Layout(manifest, None, shown.drawer), shown.result, report, values)


def _layout(manifest: Manifest, predictor: Predictor) -> _Layout:
    drawer = Drawer(
        predictor.task, predictor.preprocess, lambda shot, image: predictor.of_row(image, shot.id)
    )
    return _Layout(manifest, predictor, drawer)


def _page(layout: _Layout, result: Result, report: dict[str, Any], values: Mapping[str, Any]) -> str:
    first = result.numbers.get(result.main)
    numbers = [*([first] if first else []), *(one for one in result.numbers.values() if one is not first)]
    shown = [one for one in numbers if one.fact]
    units = {one.unit for one in shown if one.low is not None or one.why}
    sections = [laid for section in result.sections if (laid := layout(section))]
    if drawn := raster_map(layout.rows.values(), layout.colours, result):
        sections.insert(1, drawn)
    laid_out = {
        "draft": False,
        "doubts": None,
        **values,
        "report": report,
        "numbers": shown,
        "intervals": "%" if units == {"%"} else "mixed" if units else "",
        "sections": sections,
        "score_name": next((one.name for one in result.numbers.values()), result.main),
        "points": points_laid_out(report.get("points", ()), result),
    }
    return render("report.html", laid_out)


def points_laid_out(rows: Sequence[Mapping[str, Any]], result: Result) -> dict[str, Any] | None:
    """Return measured operating points for the template, or None if there are none."""
    return laid_out(rows, next((one.name for one in result.numbers.values()), result.main)) if rows else None


def _checked(run: Run, manifest: Manifest) -> list[str]:
    """Return the findings of the check at the start of the run; for older runs, notes from the manifest."""
    kept = next((event for event in run.history() if event["event"] == "checked"), None)
    if kept is None:
        return list(_notes(manifest))
    return [*(one["text"] for one in kept["findings"]), *kept["notes"]]


def _notes(manifest: Manifest) -> Iterator[str]:
    """Yield notes about the data that affect the score: images left out and why, duplicates, groups."""
    out = [row for row in manifest.rows(state=None) if row.state != KEPT]
    if out:
        reasons = shorten((f"{row.id} ({row.reason.rstrip('.')})" for row in out), 5)
        yield f"{count(len(out), 'image')} left out: {reasons}."
    sizes = Counter(row.group for row in manifest.rows() if row.group)
    tied = [size for size in sizes.values() if size > 1]
    if tied:
        yield (
            f"{count(sum(tied), 'image')} in {count(len(tied), 'group')} of duplicates or of one origin: a group "
            "counts once in every interval."
        )


def plain_layout(section: Section) -> dict[str, Any] | None:
    """Return the template values of a section that needs no image of the data, such as a table; None for others."""
    shared = {"kind": section.kind, "heading": section.heading}
    if isinstance(section, TableSection):
        return {**shared, "table": section.table, "note": section.note}
    if isinstance(section, Curve):
        figure = plots.curves(section.series, section.x, section.y, section.bands)
        return {**shared, "image": plots.data_uri(figure), "note": section.note}
    if isinstance(section, Picture):
        return {**shared, "image": section.image, "note": section.note}
    if isinstance(section, Bars):
        figure = plots.intervals([plots.Bar(*span) for span in section.spans()], section.x, region=0.0)
        return {**shared, "image": plots.data_uri(figure), "note": section.note}
    return None


class _Layout:
    """Converts sections to template values: loads images, draws curves.

    Without a predictor there are no galleries; without a drawer there are no overlays.
    """

    def __init__(self, manifest: Manifest, predictor: Predictor | None, drawer: Drawer | None) -> None:
        self.root, self.predictor, self.drawer = manifest.root, predictor, drawer
        self.rows = {row.id: row for row in manifest.rows()}
        self.colours = manifest.truth.colours
        self.album = Album(manifest.root)
        self.explained = False

    def __call__(self, section: Section) -> dict[str, Any] | None:
        """Return the template values of a section, or None if there is nothing to show."""
        if plain := plain_layout(section):
            return plain
        lay: Mapping[str, Callable[[Any], dict[str, Any] | None]] = {
            "matrix": self._matrix,
            "gallery": self._gallery,
            "overlays": self._overlays,
            "reliability": self._reliability,
        }
        values = lay[section.kind](section) if section.kind in lay else None
        return None if values is None else {"kind": section.kind, "heading": section.heading, **values}

    def _matrix(self, matrix: Matrix) -> dict[str, Any]:
        filled = cells(matrix, self.rows, self.album)
        return {"matrix": filled, "left_out": self.album.missing}

    def _gallery(self, gallery: Gallery) -> dict[str, Any] | None:
        """Return the images of a gallery; the first gallery with heat maps also explains how to read them."""
        if self.predictor is None:
            return None
        method = method_for(self.predictor.network) if gallery.explain else None
        first = gallery.explain and not self.explained
        self.explained = self.explained or gallery.explain
        pictures = [self._explained(self.predictor, shot, method) for shot in gallery.shots]
        return {"hint": gallery.hint, "how": first, "method": method, "pictures": pictures, "panels": False}

    def _explained(self, predictor: Predictor, shot: Shot, method: str | None) -> dict[str, Any]:
        image = self._image(predictor.preprocess, shot)
        plain = plots.of_array(predictor.preprocess.visible(image))
        figure = explain(predictor, image, method).figure(LARGE) if method else plots.shown(plain)
        figure.thumbnail((WIDTH, WIDTH))
        return {"image": plots.photo_uri(figure), "shot": shot}

    def _image(self, steps: Preprocess, shot: Shot) -> NDArray[Any]:
        row = self.rows[shot.id]
        return load_for(steps, self.root, row)

    def _overlays(self, overlays: Overlays) -> dict[str, Any] | None:
        """Return the images with the prediction drawn on each by the task."""
        if (drawer := self.drawer) is None:
            return None
        panels = hasattr(drawer.task, "compare")
        width, pictures = WIDE if panels else WIDTH, []
        for shot in overlays.shots:
            image = self._image(drawer.preprocess, shot)
            visible = drawer.preprocess.visible(image)
            figure = plots.shown(self._drawn(drawer, plots.of_array(visible), image, shot))
            figure.thumbnail((width, width))
            pictures.append({"image": plots.photo_uri(figure), "shot": shot})
        return {"hint": overlays.hint, "pictures": pictures, "panels": panels}

    def _drawn(self, drawer: Drawer, shown: Image, image: NDArray[Any], shot: Shot) -> Image:
        """Return an image with the prediction drawn on it, next to the truth if the task can draw both."""
        task, answer = drawer.task, drawer.predict(shot, image)
        compare = getattr(task, "compare", None)
        if compare is None:
            return task.render(shown, answer)
        beside: Image = compare(shown, answer, task.read(self.rows[shot.id], self.root))
        return beside

    def _reliability(self, section: Reliability) -> dict[str, Any]:
        calibration = section.calibration
        bins = [(b["sure"], *b["right"].values(), b["answers"]) for b in calibration["bins"]]
        return {
            "image": plots.data_uri(plots.reliability(bins)),
            "calibration": calibration,
            "fitted_on": section.fitted_on,
        }
