"""vitrail train."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from vitrail.runs.options import TrainOptions


def train(
    data: str = "",
    *,
    options: Annotated[TrainOptions, Parameter(name="*")] = TrainOptions(),
    resume: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Train a network on a folder of pictures and say honestly how good it is.

    The pictures are checked first; what is broken is named and left out, never replaced. The best weights by
    validation score are kept in the run folder, and the score is counted on pictures that training never saw.

        vitrail train photos/
        vitrail train photos/ --model resnet50 --time 30m
        vitrail train --resume runs/photos

    Parameters
    ----------
    data
        a folder (photos/cat/1.jpg, or with train, val and test folders above), or the built-in digits
    resume
        go on with this run, which was stopped or killed
    dry_run
        print the plan (pictures, steps, memory, minutes) and stop
    json
        print one JSON value, for programs
    """
    from vitrail.cli.output import print_json, say
    from vitrail.core.errors import SettingError

    if bool(data) == bool(resume):
        raise SettingError("Name a folder to train on, or --resume and a run: vitrail train photos/")
    if dry_run:
        from vitrail.training.dry import dry

        found = dry(data, options)
        print_json(found.to_dict()) if json else print("\n".join(found.lines()))  # noqa: T201
        return 0
    from vitrail.cli.training import train_with_progress

    report = train_with_progress(data, options, resume)
    if json:
        print_json(report)
    else:
        say("")
        sys.stdout.write("\n".join(_ending(report)) + "\n")
    return 0


def _ending(report: dict[str, object]) -> list[str]:
    run = report["run"]
    return [
        str(report["verdict"]),
        f"model   {run}/model.safetensors  (one file, all that prediction needs)",
        f"report  {run}/report.html",
        f"next    vitrail predict {run} picture.jpg",
    ]
