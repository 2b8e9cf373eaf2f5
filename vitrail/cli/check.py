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
    *,
    options: Annotated[LayoutOptions, Parameter(name="*")] = DEFAULTS,
    task: str | None = None,
    html: str | None = None,
    undo: tuple[int, ...] = (),
    drop: tuple[str, ...] = (),
    history: bool = False,
    json: bool = False,
) -> int:
    """Look at a data set: what it is and why, what is wrong with it, what to do.

    Every image is decoded once; a second check only looks at what is new. The data are never changed: what is
    decided stands in a file beside them (photos.vitrail.jsonl), and everything decided can be taken back.

        vitrail check photos/
        vitrail check photos.zip --html check.html
        vitrail check labels.csv --json
        vitrail check photos/ --undo 3

    Parameters
    ----------
    data
        a folder, zip, tar, table (CSV, TSV, JSON lines, Parquet, Excel), .npz, or the built-in digits
    task
        the task that is to learn from it, where it is not the usual one: classify, multilabel, segment, or one of
        your own, module:Class
    html
        write a page with the images to this file
    undo
        take back the decision of this number
    drop
        leave this image out (its path as the check names it)
    history
        show what was decided
    json
        print one JSON value, for programs
    """
    from vitrail.cli.output import print_json
    from vitrail.cli.path_checks import data_there
    from vitrail.data.decisions import History, history_path
    from vitrail.data.layouts import sniff
    from vitrail.data.prepare import find, prepare

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
    # What was found is told first: none of it may hang on a place that takes a file.
    if json:
        print_json(prepared.to_dict() | {"decisions": _plain(noted), "page": html})
    else:
        sys.stdout.write("\n".join([*prepared.lines(), ""]) + "\n")
    sys.stdout.flush()
    kept = noted.decisions == before.decisions or _keep(noted, path, asked=bool(undo or drop))
    if html:
        _write_page(Path(html), data, prepared, noted)
    if not json:
        sys.stdout.write("\n".join(_next(prepared, html, noted if kept else before)) + "\n")
    return 0


def _keep(history: History, path: Path, *, asked: bool) -> bool:
    """Write what was decided, or say that it cannot be kept; an error where the user asked for a decision."""
    from vitrail.cli.output import say
    from vitrail.core.errors import RunError

    try:
        history.write(path)
    except RunError as error:
        if asked:
            raise
        say(f"What the check decided is not kept, so there is nothing to take back: {error}")
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
            raise UnknownNameError("picture", one, known, "Images are called as the check names them.")


def _with_bar(job: Any) -> Prepared:
    """Run a job under a progress bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("looking at every image", total=None)
        prepared: Prepared = job(lambda done, total: bar.update(task, completed=done, total=total))
        return prepared


def _write_page(target: Path, name: str, prepared: Prepared, history: History) -> None:
    from vitrail.core.files import write_text
    from vitrail.reports.data_page import data_page

    write_text(target, data_page(name, prepared, history))


def _next(prepared: Prepared, html: str | None, history: History) -> list[str]:
    """Return what was decided, by its numbers, and what to type next."""
    question = prepared.layout.question
    ways = [(f"--{name}", value) for _, (name, value) in question.ways] if question else [()]
    commands = [prepared.command("train", *way) for way in ways]
    standing = [one for one in history.decisions if one.what != "undo" and one.number not in history.undone()]
    return [
        *([f"page    {html}"] if html else []),
        *(f"decided {one.text()}" for one in standing[-3:]),
        *([f"undo    {prepared.command('check', '--undo', standing[-1].number)}"] if standing else []),
        f"next    {commands[0]}",
        *(f"   or   {one}" for one in commands[1:]),
    ]


def _show(history: History, json: bool) -> None:
    from vitrail.cli.output import print_json

    gone = history.undone()
    lines = [one.text() + ("  (taken back)" if one.number in gone else "") for one in history.decisions]
    print_json(_plain(history)) if json else sys.stdout.write(
        "\n".join(lines or ["Nothing was decided."]) + "\n"
    )


def _plain(history: History) -> list[dict[str, Any]]:
    gone = history.undone()
    return [
        one._asdict() | {"ids": list(one.ids), "taken_back": one.number in gone} for one in history.decisions
    ]
