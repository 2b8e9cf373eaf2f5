"""vitrail compare."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from vitrail.data.options import DEFAULTS, LayoutOptions
from vitrail.robustness.options import DEFAULTS as PLAIN
from vitrail.robustness.options import RobustnessOptions
from vitrail.studies.compare_options import CompareOptions, RunsAsked, refuse_idle, shared_options

if TYPE_CHECKING:
    from vitrail.studies.compare.comparison import Comparison


def compare(
    data: str = "",
    /,
    *more: str,
    wanted: Annotated[CompareOptions, Parameter(name="*")] = CompareOptions(),
    runs: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    robust: Annotated[RobustnessOptions, Parameter(name="*")] = PLAIN,
    options: Annotated[LayoutOptions, Parameter(name="*")] = DEFAULTS,
    out: str = "",
    resume: str = "",
    json: bool = False,
) -> int:
    """Say which network is better on your images, and how far that can be trusted.

    Every network is trained in ten folds for an equal share of the time, with equal augmentation and a learning rate
    of its own; every image is tested once by networks that never saw it. Or trained models are compared on the same
    test images.

        vitrail compare photos/ --models vit_s16,swin_t,resnet50 --time 2h
        vitrail compare photos/ --models vit_s16,resnet50 --weights none
        vitrail compare photos/ --models vit_s16=vit.safetensors,resnet50=cnn.safetensors --tune draft
        vitrail compare --runs runs/a runs/b
        vitrail compare --runs runs/a runs/b --robustness

    Parameters
    ----------
    data
        images with their truth, as for training; with --runs: new images to compare them on
    more
        further rasters, whose bands are put on those of the first: s1.tif s2_10m.tif s2_20m.tif
    runs
        runs, model files or published weights that are trained already
    out
        folder for the comparison, runs/compare-<data> by default
    resume
        go on with this comparison, which was interrupted
    json
        print one JSON value, for programs
    """
    from vitrail.cli.output import print_json, say
    from vitrail.cli.path_checks import data_there, images_named, model_file
    from vitrail.core.errors import UsageError
    from vitrail.core.text import command
    from vitrail.data.rasters.sources import joined

    data = joined(data, more)
    refuse_idle(wanted, bool(runs))
    robust.refuse_idle()
    if robust.robustness and not runs:
        raise UsageError("--robustness compares trained models. Name them: --runs runs/a runs/b")
    if resume and (data or runs or wanted.models):
        raise UsageError("--resume goes on with what was asked for. Leave the other words out.")
    for model in runs:
        images_named(model, data, command("compare", "IMAGES", "--runs", *runs))
    if data:
        data_there(data)
    runs = tuple(map(model_file, runs))
    if resume:
        found = _resumed(resume)
    elif runs:
        found = _given(RunsAsked(runs, data, options, wanted, robust), out)
    else:
        found = _made(data, wanted, options, out)
    if json:
        print_json(found.report)
        return 0
    sys.stdout.write("\n".join(_lines(found.report)) + "\n")
    say(f"page    {found.folder}/compare.html")
    return 0


def _resumed(folder: str) -> Comparison:
    from pathlib import Path

    from vitrail.cli.output import say
    from vitrail.studies.compare import comparison

    return comparison.resume(Path(folder), say)


def _given(asked: RunsAsked, out: str) -> Comparison:
    from vitrail.cli.output import say
    from vitrail.studies.compare import comparison

    return comparison.compare_runs(asked, say, out)


def _made(data: str, wanted: CompareOptions, options: LayoutOptions, out: str) -> Comparison:
    from vitrail.cli.output import say
    from vitrail.studies.compare import comparison

    comparison.refuse_missing(data, wanted.models or "")
    asked = comparison.Asked(
        data, wanted.models or "", wanted.time or "30m", wanted.epochs, wanted.rounds, wanted.region,
        wanted.own_augmentation, shared_options(wanted, options),
    )  # fmt: skip
    return comparison.compare(asked, say, out)


def _lines(report: dict[str, Any]) -> list[str]:
    from vitrail.cli.output import table
    from vitrail.studies.compare.sentences import HEAD, notes_of, table_of

    rows = table_of(report)
    found = report.get("robustness", {})
    robust = ["", found["verdict"], *found["sentences"]] if found else []
    return [
        *report["verdict"], "", table(list(HEAD), rows, right=range(3, len(HEAD))), "", *notes_of(report), *robust
    ]  # fmt: skip
