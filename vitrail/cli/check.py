"""vitrail check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from vitrail.data.options import DEFAULTS, LayoutOptions

if TYPE_CHECKING:
    from vitrail.data.decisions import History
    from vitrail.data.prepare import Prepared


def check(
    data: str,
    /,
    *more: str,
    options: Annotated[LayoutOptions, Parameter(name="*")] = DEFAULTS,
    task: str | None = None,
    html: str | None = None,
    undo: tuple[int, ...] = (),
    drop: tuple[str, ...] = (),
    history: bool = False,
    json: bool = False,
) -> int:
    """Check a data set: its layout and why, its problems, and what to do next.

    Every image is decoded once; a second check only decodes new images. The data are never changed: decisions are
    stored in a file next to them (photos.vitrail.jsonl), and every decision can be undone.

        vitrail check photos/
        vitrail check photos.zip --html check.html
        vitrail check labels.csv --json
        vitrail check scene.tif --labels training.gpkg
        vitrail check photos/ --undo 3

    Parameters
    ----------
    data
        a folder, zip, tar, table (CSV, TSV, JSON lines, Parquet, Excel), .npz, a raster, or the built-in digits
    more
        further rasters, whose bands are put on those of the first: s1.tif s2_10m.tif s2_20m.tif
    task
        the task to train, if not the default one: classify, multilabel, segment, detect, instances, panoptic,
        pretrain, retrieve, or generate, or your own, module:Class
    html
        write a page with the images to this file
    undo
        undo the decision with this number
    drop
        leave this image out (its path as the check names it)
    history
        show all decisions
    json
        print one JSON value, for programs
    """
    from vitrail.cli.output import print_json
    from vitrail.cli.path_checks import data_there
    from vitrail.data.decisions import History, history_path
    from vitrail.data.layouts import sniff
    from vitrail.data.prepare import find, prepare
    from vitrail.data.rasters.sources import joined, words_of

    data = joined(data, more)
    data_there(data)

    path = history_path(find(data))
    before = History.read(path)
    decided = _decide(before, undo, drop)
    if history:
        _show(decided, json)
        return 0
    layout = sniff(find(data), options, task=task)
    prepared = _with_bar(
        lambda progress: prepare(data, layout, progress=progress, history=decided, task=task)
    )
    _refuse_unknown(drop, prepared)
    noted = decided.note(prepared.report.findings)
    # Print the findings first: they must not be lost if a file cannot be written.
    if json:
        print_json(prepared.to_dict() | {"decisions": _plain(noted), "page": html})
    else:
        sys.stdout.write("\n".join([*prepared.lines(), ""]) + "\n")
    sys.stdout.flush()
    kept = noted.decisions == before.decisions or _keep(noted, path, asked=bool(undo or drop))
    if html:
        _write_page(Path(html), " + ".join(words_of(data)), prepared, noted)
    if not json:
        sys.stdout.write("\n".join(_next(prepared, html, noted if kept else before)) + "\n")
    return 0


def _keep(history: History, path: Path, *, asked: bool) -> bool:
    """Write the decisions, or say that they cannot be saved; an error if the user asked for a decision."""
    from vitrail.cli.output import say
    from vitrail.core.errors import RunError

    try:
        history.write(path)
    except RunError as error:
        if asked:
            raise
        say(f"The decisions of this check are not saved, so they cannot be undone: {error}")
        return False
    return True


def _decide(history: History, undo: tuple[int, ...], drop: tuple[str, ...]) -> History:
    for number in undo:
        history = history.undo(number)
    return history.decide("drop", drop) if drop else history


def _refuse_unknown(drop: tuple[str, ...], prepared: Prepared) -> None:
    from vitrail.core.errors import UnknownNameError

    known = {row.id for row in prepared.report.rows}
    for one in drop:
        if one not in known:
            raise UnknownNameError("picture", one, known, "Use the names that the check prints.")


def _with_bar(job: Any) -> Prepared:
    """Run a job with a progress bar on standard error, if it is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("checking every image", total=None)
        prepared: Prepared = job(lambda done, total: bar.update(task, completed=done, total=total))
        return prepared


def _write_page(target: Path, name: str, prepared: Prepared, history: History) -> None:
    from vitrail.core.files import write_text
    from vitrail.reports.data_page import data_page

    write_text(target, data_page(name, prepared, history))


def _next(prepared: Prepared, html: str | None, history: History) -> list[str]:
    """Return the last decisions with their numbers, and the next commands."""
    question = prepared.layout.question
    ways = [(f"--{name}", value) for _, (name, value) in question.ways] if question else [()]
    commands = [prepared.command("train", *way) for way in ways]
    active = [one for one in history.decisions if one.what != "undo" and one.number not in history.undone()]
    return [
        *([f"page    {html}"] if html else []),
        *(f"decided {one.text()}" for one in active[-3:]),
        *([f"undo    {prepared.command('check', '--undo', active[-1].number)}"] if active else []),
        f"next    {commands[0]}",
        *(f"   or   {one}" for one in commands[1:]),
    ]


def _show(history: History, json: bool) -> None:
    from vitrail.cli.output import print_json

    undone = history.undone()
    lines = [one.text() + ("  (undone)" if one.number in undone else "") for one in history.decisions]
    if json:
        print_json(_plain(history))
    else:
        sys.stdout.write("\n".join(lines or ["There are no decisions."]) + "\n")


def _plain(history: History) -> list[dict[str, Any]]:
    undone = history.undone()
    return [
        one._asdict() | {"ids": list(one.ids), "taken_back": one.number in undone}
        for one in history.decisions
    ]
