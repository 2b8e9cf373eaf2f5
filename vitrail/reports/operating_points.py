"""Operating points of a run: measured on validation images after training, and again on demand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vitrail.core.errors import RunError, SettingError
from vitrail.core.files import refuse_unwritable, write_json, write_text
from vitrail.core.text import command
from vitrail.data.manifest import VAL, Manifest
from vitrail.data.options import DEFAULTS, LayoutOptions
from vitrail.evaluate.collect_answers import rows_of
from vitrail.evaluate.new_data import open_new_data, training_rows
from vitrail.evaluate.operating_points import Images, MeasuredPoints, measure_points, with_beaten
from vitrail.infer.operating_points import WHO_HAS_A_DIAL, asked_for
from vitrail.infer.predictor import Predictor, refuse_exported
from vitrail.infer.proof_images import root_of
from vitrail.reports.points_page import points_page, verdict
from vitrail.reports.run_page import page
from vitrail.runs.image_changes import without_changes
from vitrail.runs.model_file import write_model
from vitrail.runs.run import Run, open_run
from vitrail.tasks.result_file import result_from_dict

Say = Callable[[str], None]

PAGE = "points.html"
"""The page of the operating points in the folder of a run."""


def _silent(line: str) -> None:
    """Ignore a message."""


def with_operating_points(run: Run, manifest: Manifest, predictor: Predictor) -> Predictor:
    """Measure the points that a run was trained for, in float32, and store them in its model file.

    A file that already contains measurements is not changed; one point needs no table.
    """
    if len(predictor.points) == 1 or predictor.header.points:
        return predictor
    images = Images(manifest, rows_of(manifest, VAL))
    measured = measure_points(predictor, predictor.points, images, _silent, plain=True)
    store(predictor, measured)
    return Predictor(run.folder)


def store(predictor: Predictor, measured: MeasuredPoints) -> tuple[str, ...]:
    """Write measured points into the model file, beside others that were measured likewise before.

    Points of another machine, of other images, or timed in float32 after training cannot be compared: they are left
    out, and this is returned in words.
    """
    new = {row["point"] for row in measured.rows}
    old = [row for row in predictor.header.points if row["point"] not in new]
    alike = ("machine", "by_training", "pictures", "called")
    kept = [row for row in old if all(row.get(key) == measured.rows[0][key] for key in alike)]
    order = {str(point): place for place, point in enumerate(predictor.dial)}
    rows = sorted([*kept, *measured.rows], key=lambda row: order.get(row["point"], len(order)))
    header = predictor.header.model_copy(update={"points": with_beaten(rows)})
    write_model(predictor.path, predictor.network.to("cpu"), header)
    if len(kept) == len(old):
        return ()
    return (
        f"{len(old) - len(kept)} points that were measured otherwise (another machine, other images, or in float32 "
        "after training) are no longer in the model file.",
    )


class PointsTold(NamedTuple):
    """Measured points as plain data, and the name of their score."""

    report: dict[str, Any]
    score: str


@dataclass(frozen=True, kw_only=True)
class PointsWish:
    """What to measure: `wanted` points (`all`, or a list) on `data` or, without, on the run's validation images.

    `beside` are other models that are measured on the same images, `html` is the file of the page.
    """

    wanted: str = "all"
    data: str = ""
    beside: Sequence[str] = ()
    html: str | None = None
    read: LayoutOptions = DEFAULTS
    device: str = "auto"


def evaluate_points(model: str, wish: PointsWish, say: Say = _silent) -> PointsTold:
    """Measure operating points of a model, write its page, and store them in the model file.

    Points that were measured on images other than the validation images of the run are stored only where it has none:
    in a draft, and in a lone model file.

    Raises:
        SettingError: a point that the network does not have, or a network with one point only.
        RunError: the model has no validation images, and no others were named.
    """
    refuse_exported(Path(model))
    if wish.html:
        refuse_unwritable(Path(wish.html))
    predictor = Predictor(model, wish.device)
    predictor.answering()
    points = _points(predictor, model, wish.wanted)
    images, notes, own = _images(predictor, model, wish)
    others = _others(predictor, wish, images)
    measured = measure_points(predictor, points, images, say)
    left_out = store(predictor, measured) if own else ()
    rows = with_beaten([*shown(measured.rows), *_beside(others, images, say)])
    whole = str(predictor.points[-1])
    told = [*notes, *measured.notes, *left_out]
    path = _page(model, points_page(model, rows, measured.score, whole, told), wish.html)
    if own and Path(model).is_dir():
        _into_report(open_run(model))
    report = {
        "model": predictor.header.name,
        "points": rows,
        "verdict": verdict(rows, whole),
        "stored": own,
        "notes": told,
        "page": path,
    }
    return PointsTold(report, measured.score)


def _points(predictor: Predictor, model: str, wanted: str) -> list[Any]:
    if len(predictor.dial) == 1:
        windows = " It predicts in sliding windows." if predictor.preprocess.zoom is not None else ""
        raise SettingError(
            f"{model} has one operating point only, {predictor.points[-1]}: {predictor.header.name} takes one size and "
            f"all its tokens.{windows} {WHO_HAS_A_DIAL}"
        )
    return asked_for(wanted, predictor.dial)


def _images(predictor: Predictor, model: str, wish: PointsWish) -> tuple[Images, tuple[str, ...], bool]:
    """Return the images to measure on, notes about them, and whether the points go into the model file."""
    run = open_run(model) if Path(model).is_dir() else None
    draft = run is not None and run.recipe().training.tune == "draft"
    if wish.data:
        new = open_new_data(wish.data, predictor.task, training_rows(model), read=wish.read)
        alone = Path(model).is_file() or draft
        return Images(new.manifest, new.rows, new.called), new.notes, alone
    more = command("eval", model, "FOLDER", "--points", wish.wanted)
    if run is None:
        raise RunError(f"{model} is a model file without validation images. Name some: {more}")
    if draft:
        raise RunError(f"{model} is a draft, which is trained on all its images. Name new ones: {more}")
    manifest, changed = without_changes(run, run.manifest(root_of(run)), (VAL,))
    notes = (f"{changed}: left out of the score.",) if changed else ()
    return Images(manifest, rows_of(manifest, VAL)), notes, True


def _others(predictor: Predictor, wish: PointsWish, images: Images) -> dict[str, Predictor]:
    """Open the models beside, by name, before anything is measured.

    Raises:
        RunError: one was trained on some of the images, or predicts something else.
    """
    known = {row.id for row in images.rows}
    found = {}
    for model in wish.beside:
        refuse_exported(Path(model))
        seen = {row.id for row in training_rows(model) or () if row.split != VAL} & known
        if seen:
            raise RunError(
                f"{model} was trained on {len(seen):,} of these images, so its score would be too high. Compare runs "
                "with the same split: train them with the same data and --seed."
            )
        other = Predictor(model, wish.device)
        if other.task.labels != predictor.task.labels or other.task.name != predictor.task.name:
            raise RunError(
                f"{model} predicts {other.task.name} of {len(other.task.labels)} classes, and this model "
                f"{predictor.task.name} of {len(predictor.task.labels)}. Compare models with the same classes."
            )
        found[Path(model).name] = other
    return found


def _beside(others: Mapping[str, Predictor], images: Images, say: Say) -> list[dict[str, Any]]:
    """Return a row for each other model, at the cost of its whole network."""
    rows = []
    for name, other in others.items():
        measured = measure_points(other, [other.points[-1]], images, say)
        rows += [{**row, "network": name} for row in measured.rows]
    return shown(rows)


def _page(model: str, page: str, html: str | None) -> str:
    """Write the page to the named file, or into the folder of a run; return the file, "" if there is none."""
    folder = Path(model) if Path(model).is_dir() else None
    path = Path(html) if html else folder and folder / PAGE
    if path:
        write_text(path, page)
    return str(path or "")


def _into_report(run: Run) -> None:
    """Show the stored points in the report and on the page of a run."""
    if not run.report_path.is_file():
        return
    predictor = Predictor(run)
    report = json.loads(run.report_path.read_text(encoding="utf-8"))
    report["points"] = shown(predictor.header.points)
    if report.get("draft") or not run.result_path.is_file():
        write_json(run.report_path, report)
        return
    result = result_from_dict(json.loads(run.result_path.read_text(encoding="utf-8")))
    manifest = run.manifest(run.root())
    html = page(run, manifest, predictor, result, report)
    write_json(run.report_path, report)
    write_text(run.folder / "report.html", html)


def shown(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return measured points as reports hold them, without what was calibrated there."""
    return [{key: value for key, value in row.items() if key != "task"} for row in rows]
