"""vitrail reproduce."""

from __future__ import annotations

import sys


def reproduce(report: str, /, *, data: str = "", weights: str = "", out: str = "", json: bool = False) -> int:
    """Run a training again from the page of its report, and say whether the result is equal, or what differs.

    The page holds the hashes of images, truths, split and weights, the seed, the settings and the versions. On the same
    machine a training is equal to the bit; elsewhere the differences are named.

        vitrail reproduce runs/photos/report.html
        vitrail reproduce report.html --data photos/
        vitrail reproduce runs/photos --json

    Parameters
    ----------
    report
        the report.html or report.json of a run, or its folder
    data
        where the images are now, by default where the run had them
    weights
        where the initial weights are now, by default where the run had them
    out
        folder of the new run, RUN-again by default
    json
        print one JSON value, for programs
    """
    from pathlib import Path

    from vitrail.cli.output import print_json, say
    from vitrail.cli.path_checks import data_there, run_there

    run_there(report)
    if data:
        data_there(data)
    from vitrail.studies.rerun import Places, rerun
    from vitrail.training.progress import Teller

    with Teller(say) as teller:
        found = rerun(Path(report), Places(data, weights, out), [teller])
    if json:
        print_json(found.to_dict())
    else:
        sys.stdout.write("\n".join([*found.lines(), f"run     {found.run.folder}"]) + "\n")
    return 0
