"""Puts report.html together: words, curves, and the sections of a result with their images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray
from PIL.Image import Image
from PIL.Image import open as open_picture

from vitrail import plots
from vitrail.core.text import clock
from vitrail.data.decode import preview
from vitrail.data.labels import count, shorten
from vitrail.data.manifest import KEPT, Manifest
from vitrail.data.open_image import load
from vitrail.data.preprocess import Preprocess
from vitrail.evaluate.new_data import NewData
from vitrail.explainers.explanation import explain, method_for
from vitrail.infer.predictor import Predictor
from vitrail.pages import render
from vitrail.reports.confusion_table import cells
from vitrail.reports.curves import loss_curve, score_curve
from vitrail.reports.thumbnails import Album
from vitrail.runs.run import Run
from vitrail.tasks.base import Task
from vitrail.tasks.probe import Doubt
from vitrail.tasks.result import (
    Curve,
    Gallery,
    Matrix,
    Overlays,
    Reliability,
    Result,
    Section,
    Shot,
    measured,
)

WIDTH = 520
"""Pixels of an image and its heat map side by side."""

WIDE = 3 * WIDTH
"""Pixels of truth, answer and errors side by side."""

LARGE = 4 * WIDTH
"""Pixels of a side from which an image is made smaller before a heat map is laid over it."""


def page(run: Run, manifest: Manifest, predictor: Predictor, result: Result, report: dict[str, Any]) -> str:
    """Return the page of a run: one self-contained file of a few MB that names no path of this machine."""
    classes = f" on {count(len(predictor.labels), 'class', 'classes')}" if predictor.labels else ""
    first = result.numbers.get(result.main)
    values = {
        "title": f"{report['model']}{classes}",
        "loss": loss_curve(run),
        "curve": score_curve(run, (first and first.name) or result.main),
        "live": plots.photo_uri(open_picture(run.live_path)) if run.live_path.is_file() else None,
        "subtitle": "Scored on images that neither the training nor the choice of the best epoch saw",
        "notes": _checked(run, manifest),
        "learnt": True,
        "clock": clock(report["seconds"]) if report["seconds"] > 120 else f"{report['seconds']:.0f} s",
    }
    return _page(_laid_by(manifest, predictor), result, report, values)


def page_of_new(new: NewData, predictor: Predictor, result: Result, report: dict[str, Any]) -> str:
    """Return the same page for images that were not the run's own: nothing is said of the training."""
    values = {
        "title": f"{report['model']} on {new.called}",
        "subtitle": "A trained model, scored on images that were named for it",
        "notes": [*report["notes"], *_notes(new.manifest)],
        "learnt": False,
    }
    return _page(_laid_by(new.manifest, predictor), result, report, values)


class Drawer(NamedTuple):
    """Draws answers on images: a task, the steps by which its images are read, and what is answered of one."""

    task: Task[Any, Any]
    preprocess: Preprocess
    said: Callable[[Shot, NDArray[Any]], Any]


class DraftPage(NamedTuple):
    """What the page of a draft shows: doubtful labels with their images, None where none were looked for."""

    result: Result
    report: dict[str, Any]
    doubts: Sequence[tuple[Doubt, str]] | None
    drawer: Drawer | None


def page_of_draft(run: Run, manifest: Manifest, shown: DraftPage) -> str:
    """Return the page of a draft.

    It shows no heat maps: the answers are those of heads that had not seen the images, not of the model's own.
    """
    report = shown.report
    values = {
        "title": f"A draft in {report['seconds']:.0f} seconds",
        "subtitle": "A frozen network and a linear head; every image asked once, of a head that had not seen it",
        "notes": _checked(run, manifest),
        "learnt": False,
        "draft": True,
        "doubts": shown.doubts,
    }
    return _page(_Layout(manifest, None, shown.drawer), shown.result, report, values)


def _laid_by(manifest: Manifest, predictor: Predictor) -> _Layout:
    drawer = Drawer(predictor.task, predictor.preprocess, lambda _, image: predictor(image)[0])
    return _Layout(manifest, predictor, drawer)


def _page(layout: _Layout, result: Result, report: dict[str, Any], values: Mapping[str, Any]) -> str:
    first = result.numbers.get(result.main)
    numbers = [*([first] if first else []), *(one for one in result.numbers.values() if one is not first)]
    shown = [one for one in numbers if one.fact]
    units = {one.unit for one in shown if one.low is not None or one.why}
    laid_out = {
        "draft": False,
        "doubts": None,
        **values,
        "report": report,
        "numbers": shown,
        "intervals": "%" if units == {"%"} else "mixed" if units else "",
        "sections": [laid for section in result.sections if (laid := layout(section))],
        "score_name": next((one.name for one in result.numbers.values()), result.main),
        "points": [_point(row) for row in report.get("points", ())],
    }
    return render("report.html", laid_out)


def _point(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a measured operating point with its score in words."""
    score = row["score"]
    told = [measured(score[key], score.get("unit", "%")) for key in ("value", "low", "high")]
    return {**row, **dict(zip(("told", "low", "high"), told, strict=True))}


def _checked(run: Run, manifest: Manifest) -> list[str]:
    """Return what the check found when the run began; of older runs, what the manifest still tells."""
    kept = next((event for event in run.history() if event["event"] == "checked"), None)
    if kept is None:
        return list(_notes(manifest))
    return [*(one["text"] for one in kept["findings"]), *kept["notes"]]


def _notes(manifest: Manifest) -> Iterator[str]:
    """Say what the check found that bears on the score: what was kept out and why, twins, leaks."""
    out = [row for row in manifest.rows(state=None) if row.state != KEPT]
    if out:
        reasons = shorten((f"{row.id} ({row.reason.rstrip('.')})" for row in out), 5)
        yield f"{count(len(out), 'image')} kept out: {reasons}."
    sizes = Counter(row.group for row in manifest.rows() if row.group)
    tied = [size for size in sizes.values() if size > 1]
    if tied:
        yield (
            f"{count(sum(tied), 'image')} in {count(len(tied), 'group')} of twins or of one origin: a group counts "
            "once in every interval."
        )


class _Layout:
    """Brings sections into the shape of their templates: images loaded, curves drawn.

    Without a predictor there are no galleries, without a drawer no overlays.
    """

    def __init__(self, manifest: Manifest, predictor: Predictor | None, drawer: Drawer | None) -> None:
        self.root, self.predictor, self.drawer = manifest.root, predictor, drawer
        self.rows = {row.id: row for row in manifest.rows()}
        self.album = Album(manifest.root)
        self.explained = False

    def __call__(self, section: Section) -> dict[str, Any] | None:
        """Return what the template of a section's kind fills in, or None where there is nothing to show."""
        lay: Mapping[str, Callable[[Any], dict[str, Any] | None]] = {
            "table": lambda one: {"table": one.table, "note": one.note},
            "matrix": self._matrix,
            "gallery": self._gallery,
            "overlays": self._overlays,
            "curve": self._curve,
            "reliability": self._reliability,
        }
        laid = lay[section.kind](section) if section.kind in lay else None
        return None if laid is None else {"kind": section.kind, "heading": section.heading, **laid}

    def _matrix(self, matrix: Matrix) -> dict[str, Any]:
        filled = cells(matrix, self.rows, self.album)
        return {"matrix": filled, "left_out": self.album.missing}

    def _gallery(self, gallery: Gallery) -> dict[str, Any] | None:
        """Return the images of a gallery; with the first that is explained stands how."""
        if self.predictor is None:
            return None
        method = method_for(self.predictor.network) if gallery.explain else None
        first = gallery.explain and not self.explained
        self.explained = self.explained or gallery.explain
        pictures = [self._looked(self.predictor, shot, method) for shot in gallery.shots]
        return {"hint": gallery.hint, "how": first, "method": method, "pictures": pictures, "panels": False}

    def _looked(self, predictor: Predictor, shot: Shot, method: str | None) -> dict[str, Any]:
        image = self._image(predictor.preprocess, shot)
        seen = preview(image) if predictor.preprocess.raw else image
        plain = plots.of_array(seen)
        figure = explain(predictor, image, method).figure(LARGE) if method else plots.shown(plain)
        figure.thumbnail((WIDTH, WIDTH))
        return {"image": plots.photo_uri(figure), "shot": shot}

    def _image(self, steps: Preprocess, shot: Shot) -> NDArray[Any]:
        row = self.rows[shot.id]
        return load(self.root, row.path, steps.channels, row.part, raw=steps.raw).image

    def _overlays(self, overlays: Overlays) -> dict[str, Any] | None:
        """Return the images with the task's own drawing of the answer on each."""
        if (drawer := self.drawer) is None:
            return None
        panels = hasattr(drawer.task, "compare")
        width, pictures = WIDE if panels else WIDTH, []
        for shot in overlays.shots:
            image = self._image(drawer.preprocess, shot)
            seen = preview(image) if drawer.preprocess.raw else image
            figure = plots.shown(self._drawn(drawer, plots.of_array(seen), image, shot))
            figure.thumbnail((width, width))
            pictures.append({"image": plots.photo_uri(figure), "shot": shot})
        return {"hint": overlays.hint, "pictures": pictures, "panels": panels}

    def _drawn(self, drawer: Drawer, shown: Image, image: NDArray[Any], shot: Shot) -> Image:
        """Return an image with the answer drawn on it, and beside it the truth where the task shows both."""
        task, answer = drawer.task, drawer.said(shot, image)
        compare = getattr(task, "compare", None)
        if compare is None:
            return task.render(shown, answer)
        beside: Image = compare(shown, answer, task.read(self.rows[shot.id], self.root))
        return beside

    def _curve(self, curve: Curve) -> dict[str, Any]:
        figure = plots.curves(curve.series, curve.x, curve.y)
        return {"image": plots.data_uri(figure), "note": curve.note}

    def _reliability(self, section: Reliability) -> dict[str, Any]:
        told = section.calibration
        bins = [(b["sure"], *b["right"].values(), b["answers"]) for b in told["bins"]]
        return {
            "image": plots.data_uri(plots.reliability(bins)),
            "calibration": told,
            "fitted_on": section.fitted_on,
        }
