"""vitrail fix."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from vitrail.studies.fix.fix_options import FixOptions

if TYPE_CHECKING:
    from vitrail.studies.fix.fix_loop import Fixed, Listed

SHOWN = 15
"""Number of labels that are printed; the table holds all of them."""


def fix(
    run: str,
    /,
    *,
    decisions: Annotated[FixOptions, Parameter(name="*")] = FixOptions(),
    data: str = "",
    with_test: bool = False,
    device: str = "auto",
    json: bool = False,
) -> int:
    """List the images whose label the model doubts; decide, fit the head again, compare before and after.

    Each label is compared with the answer of a head that was not fitted on the image. Copies of one image with several
    labels stand first. Decisions are stored in a file next to the data (photos.vitrail.jsonl); neither the data nor the
    run is changed, and every decision can be undone.

        vitrail fix runs/photos
        vitrail fix runs/photos --apply runs/photos/fix/fix.csv
        vitrail fix runs/photos --relabel cat/7.jpg=dog --drop cat/9.jpg
        vitrail fix runs/photos --undo 3

    Parameters
    ----------
    run
        a run folder, a draft or a training
    data
        where the images are now, if they were moved
    with_test
        look at the test images, too: then the comparison is no longer on images that played no part
    device
        auto, cpu, cuda, mps
    json
        print one JSON value, for programs
    """
    from vitrail.cli.output import print_json, say
    from vitrail.cli.path_checks import data_there, run_there
    from vitrail.core.errors import UsageError

    run_there(run)
    if data:
        data_there(data)
    from vitrail.studies.fix.fix_loop import decide, list_doubts
    from vitrail.training.progress import Teller

    if with_test and decisions.decides():
        raise UsageError("--with-test lists doubts, it decides nothing. Leave it out, or the decisions.")
    if decisions.out and not decisions.decides():
        raise UsageError("--out names the run after decisions, and there are none. Leave it out.")
    with Teller(say) as teller:
        found = (
            decide(run, decisions, data, device=device, listeners=[teller])
            if decisions.decides()
            else list_doubts(run, data, test=with_test, device=device, listeners=[teller])
        )
    if json:
        print_json(_plain(found))
    else:
        for note in found.notes:
            say(note)
        sys.stdout.write("\n".join(_lines(found, run)) + "\n")
    return 0


def _plain(found: Listed | Fixed) -> dict[str, object]:
    from vitrail.studies.fix.fix_loop import Listed

    if isinstance(found, Listed):
        paths = {"table": str(found.table), "page": str(found.page)}
        return {"verdict": found.result.verdict, **found.result.details, **paths, "notes": list(found.notes)}
    return {
        "decisions": [
            {"number": one.number, "what": one.what, "ids": list(one.ids), "value": one.value}
            for one in found.decisions
        ],
        "comparison": found.comparison.to_dict() if found.comparison else None,
        "says": found.comparison.lines() if found.comparison else [found.why],
        "run": str(found.run.folder) if found.run else None,
        "notes": list(found.notes),
    }


def _lines(found: Listed | Fixed, run: str) -> list[str]:
    from vitrail.core.text import command
    from vitrail.studies.fix.fix_loop import Listed

    if isinstance(found, Listed):
        return [found.result.verdict, *_table(found), "", *_ways(found)]
    numbers = [str(one.number) for one in found.decisions if one.what != "undo"]
    noted = [f"decided {one.text()}" for one in found.decisions[:SHOWN]]
    more = [f"   and  {len(found.decisions) - SHOWN:,} more"] if len(found.decisions) > SHOWN else []
    said = found.comparison.lines() if found.comparison else [found.why]
    return [
        *said,
        "",
        *noted,
        *more,
        *([f"run     {found.run.folder}"] if found.run else []),
        *([f"undo    {command('fix', run, '--undo', numbers[-1])}"] if numbers else []),
    ]


def _table(found: Listed) -> list[str]:
    from vitrail.cli.output import table

    shown = found.doubts.entries[:SHOWN]
    if not shown:
        return []
    head = ["image", "split", "label", "looks like", "confidence", "margin", "why"]
    rows = [
        [
            one.row.id, one.row.split, one.score.label, one.score.proposal,
            f"{100 * one.score.confidence:.1f} %", f"{one.score.margin:+.3f}", one.why,
        ]
        for one in shown
    ]  # fmt: skip
    rest = len(found.doubts.entries) - len(shown)
    return [
        "",
        table(head, rows, right=(4, 5)),
        *([f"and {rest:,} more in the table."] if rest else []),
    ]


def _ways(found: Listed) -> list[str]:
    first, *others = found.commands
    return [
        f"table   {found.table}",
        f"page    {found.page}",
        f"next    {first}",
        *(f"   or   {one}" for one in others),
    ]
