"""vitrail eval."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from vitrail.data.options import DEFAULTS, LayoutOptions
from vitrail.evaluate.point_options import DEFAULTS as NO_POINTS
from vitrail.evaluate.point_options import PointOptions
from vitrail.robustness.options import DEFAULTS as PLAIN
from vitrail.robustness.options import RobustnessOptions

if TYPE_CHECKING:
    from vitrail.reports.evaluate_model import Told
    from vitrail.tasks.result import Cell, Column, Result, Table

ABSENT = 20
"""Largest number of classes without an image that are shown."""


def evaluate(
    model: str,
    data: str = "",
    /,
    *more: str,
    html: str | None = None,
    options: Annotated[LayoutOptions, Parameter(name="*")] = DEFAULTS,
    device: str = "auto",
    dial: Annotated[PointOptions, Parameter(name="*")] = NO_POINTS,
    wanted: Annotated[RobustnessOptions, Parameter(name="*")] = PLAIN,
    json: bool = False,
) -> int:
    """Evaluate a trained model on its own test images, or on new ones.

    Every score has a 95 % interval, in which duplicates count once; a dash means that there are too few images for
    an interval. New images are checked first, and their classes are matched by name with the model's.

        vitrail eval runs/photos
        vitrail eval runs/photos other-photos/ --html other.html
        vitrail eval runs/photos --points all
        vitrail eval runs/photos --points all --beside runs/smaller
        vitrail eval runs/photos --robustness
        vitrail eval model.safetensors other-photos/ --json
        vitrail eval tf_efficientnet_lite0 photos/

    Parameters
    ----------
    model
        a run folder, a model.safetensors, or published weights: a timm name, org/repo, a folder
    data
        new images with their classes: a folder, table or archive as for training; its test split, if it has one
    more
        further rasters, whose bands are put on those of the first: s1.tif s2_10m.tif s2_20m.tif
    html
        write the page for new images, or of --points, to this file (a run's own page is its report.html)
    device
        auto, cpu, cuda, mps
    json
        print one JSON value, for programs
    """
    from vitrail.cli.output import print_json, say
    from vitrail.cli.path_checks import data_there, images_named, model_file
    from vitrail.core.errors import UsageError
    from vitrail.core.text import command
    from vitrail.data.rasters.sources import joined

    data = joined(data, more)
    images_named(model, data, command("eval", model, "FOLDER"))
    wanted.refuse_idle()
    dial.refuse_idle()
    if dial.points and wanted.robustness:
        raise UsageError("--points and --robustness are two measurements. Give one of them.")
    if data:
        data_there(data)
    model = model_file(model)
    if dial.points:
        return _points(model, data, dial, html, options, device, json)
    if html and not data:
        _refuse_own_page(model)
    from vitrail.reports.evaluate_model import PageError

    failed = ""
    try:
        report, result = _told(model, data, html, options, device, wanted)
    except PageError as error:
        (report, result), failed = error.told, str(error)
    if json:
        print_json(report)
    else:
        for note in report["notes"]:
            say(note)
        sys.stdout.write("\n".join(_lines(result)) + "\n")
        sys.stdout.flush()
    if failed:
        say(failed)
    elif not json and (page := html or (_own_page(model) if wanted.robustness and not data else "")):
        say(f"page    {page}")
    return 1 if failed else 0


def _told(
    model: str,
    data: str,
    html: str | None,
    options: LayoutOptions,
    device: str,
    wanted: RobustnessOptions,
) -> Told:
    """Return the report and the result that were asked for."""
    if not wanted.robustness:
        from vitrail.reports.evaluate_model import evaluate_on, evaluate_run

        return (
            evaluate_on(model, data, html=html, read=options, device=device)
            if data
            else evaluate_run(model, device)
        )
    from vitrail.cli.output import say
    from vitrail.reports.robustness import robustness_of_run, robustness_on

    if data:
        return robustness_on(model, data, wanted, html=html, read=options, device=device, say=say)
    return robustness_of_run(model, wanted, device, say)


def _own_page(model: str) -> str:
    """Return the page of a run, or "" if it has none yet."""
    from pathlib import Path

    path = Path(model, "report.html")
    return str(path) if path.is_file() else ""


def _refuse_own_page(model: str) -> None:
    """Raise a SettingError: the page of a run's own test images is made by training."""
    from pathlib import Path

    from vitrail.core.errors import SettingError
    from vitrail.core.text import command

    there = Path(model, "report.html").is_file()
    raise SettingError(
        f"The page of a run's own test images already exists: {model}/report.html"
        if there
        else f"The page of a run's own test images is made by training: {command('train', '--resume', model)}"
    )


def _points(
    model: str,
    data: str,
    dial: PointOptions,
    html: str | None,
    options: LayoutOptions,
    device: str,
    json: bool,
) -> int:
    from vitrail.cli.output import print_json, say
    from vitrail.reports.operating_points import PointsWish, evaluate_points

    wanted = dial.points or "all"
    wish = PointsWish(wanted=wanted, data=data, beside=dial.beside, html=html, read=options, device=device)
    report, score_name = evaluate_points(model, wish, say)
    if json:
        print_json(report)
        return 0
    for note in report["notes"]:
        say(note)
    sys.stdout.write(_points_table(report["points"], score_name) + "\n")
    say(report["verdict"])
    first = report["points"][0]
    say(
        f"On {first['pictures']:,} {first['called']}, on this machine. Latency: from file to answer, one image at a "
        "time, of which 95 of 100 take no longer. Beaten: another is at least as accurate and as fast, and better in "
        "one of both."
    )
    if not report["stored"]:
        say(
            "These are other images than the run's own, so its model file still holds what was measured there."
        )
    if report["page"]:
        say(f"page    {report['page']}")
    return 0


def _points_table(points: Sequence[Mapping[str, Any]], score_name: str) -> str:
    """Return measured points as a table."""
    from vitrail.cli.output import table
    from vitrail.infer.operating_points import name_of
    from vitrail.tasks.result import Number

    rows = [
        [
            name_of(row),
            (score := Number.of(row["score"])).text(),
            score.span(),
            f"{row['gmacs']:.3g}",
            f"{row['images_per_second']:.0f}",
            f"{row['latency_ms']:.1f}",
            f"beaten by {row['beaten_by']}" if row["beaten_by"] else "",
        ]
        for row in points
    ]
    head = ["point", score_name, "95 % interval", "GMACs", "images/s", "latency, ms", ""]
    return table(head, rows, right=(1, 3, 4, 5))


def _lines(result: Result) -> Iterator[str]:
    from vitrail.cli.output import table

    yield result.verdict
    for whole in result.tables:
        one, absent = _of_images(whole)
        yield ""
        heads = [head for column in one.columns for head in _heads(column)]
        rows = [
            [text for column, cell in zip(one.columns, row, strict=True) for text in _cells(column, cell)]
            for row in one.rows
        ]
        flush = [column.right and not between for column in one.columns for between in _between(column)]
        yield table(heads, rows, right=[i for i, right in enumerate(flush) if right])
        if absent:
            yield f"{absent:,} classes without an image are not shown."
    wide = [[one.name, one.text(), one.span()] for one in result.numbers.values() if one.name]
    if wide:
        yield ""
        yield table(["", "score", "95 % interval"], wide, right=(1,))
    for section in result.sections:
        if section.line:
            yield ""
            yield section.line


def _of_images(whole: Table) -> tuple[Table, int]:
    """Return a table without its classes that no image has, if they are many, and their number."""
    names = [column.name for column in whole.columns]
    if "pictures" not in names:
        return whole, 0
    rows = tuple(row for row in whole.rows if row[names.index("pictures")] != 0)
    absent = len(whole.rows) - len(rows)
    return (whole._replace(rows=rows), absent) if absent > ABSENT else (whole, 0)


def _heads(column: Column) -> list[str]:
    return [column.name, "95 % interval"] if column.spread else [column.name]


def _between(column: Column) -> list[bool]:
    """Return for each printed column whether it holds the interval of the one before."""
    return [False, True] if column.spread else [False]


def _cells(column: Column, cell: Cell) -> list[str]:
    if isinstance(cell, str | int):
        return [str(cell)]
    return [cell.text(), cell.span()] if column.spread else [cell.text()]
