"""vitrail train."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Annotated, Any

from cyclopts import Parameter

from vitrail.runs.train_options import TrainOptions, words_of


def train(
    data: str = "",
    *more: str,
    options: Annotated[TrainOptions, Parameter(name="*")] = TrainOptions(),
    resume: str | None = None,
    changed: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Train a network on a folder of images and report how good it is.

    The images are checked first; broken ones are listed and left out, never replaced. The weights with the best
    validation score are kept in the run folder, and the score is measured on images that were not used for training.

        vitrail train photos/                              the draft: a pretrained network, frozen, and a head
        vitrail train photos/ --tune full --epochs 20      the whole network, from the draft's head
        vitrail train photos/ --weights none --time 30m    from scratch
        vitrail train scene.tif --labels training.gpkg     a map: windows of a raster, named bands
        vitrail train --resume runs/photos
        vitrail train /new/place/photos --resume runs/photos

    Parameters
    ----------
    data
        a folder (photos/cat/1.jpg, or with train, val and test folders above), or the built-in digits;
        with --resume: where the images of that run are now, if they were moved
    more
        further rasters, whose bands are put on those of the first: s1.tif s2_10m.tif s2_20m.tif
    resume
        continue this run, which was stopped or killed, with its own recipe; with --epochs: for that many more epochs.
        Its images must not have changed
    changed
        with --resume: continue although images of the run changed, and use them as they are now
    dry_run
        print the plan (images, steps, memory, minutes) and stop
    json
        print one JSON value, for programs
    """
    from vitrail.cli.output import print_json, say
    from vitrail.cli.path_checks import data_there, run_there
    from vitrail.core.environment import is_main_process
    from vitrail.core.errors import UsageError
    from vitrail.core.text import command
    from vitrail.data.rasters.sources import joined

    data = joined(data, more)
    if not data and not resume:
        raise UsageError("Name a folder to train on, or --resume and a run: vitrail train photos/")
    if resume and (rejected := _not_allowed(options)):
        raise UsageError(
            f"{', '.join(rejected)} cannot be used with --resume: a run continues with its own recipe.yaml, and only "
            f"--epochs adds to it. For other settings start a new training: "
            f"{command('train', 'IMAGES', '--recipe', f'{resume}/recipe.yaml')}"
        )
    if changed and not resume:
        raise UsageError("--changed needs --resume: a new training always uses the images as they are.")
    if resume:
        run_there(resume)
    if data:
        data_there(data)
    if dry_run:
        return _show_plan(data, options, resume, changed, json)
    from vitrail.cli.training_progress import train_with_progress

    report = train_with_progress(data, options, resume, changed)
    if not is_main_process():
        return 0
    if json:
        print_json(report)
    else:
        say("")
        sys.stdout.write("\n".join(_ending(report, data, options)) + "\n")
    return 1 if "unreported" in report else 0


def _show_plan(data: str, options: TrainOptions, resume: str | None, changed: bool, json: bool) -> int:
    """Print the plan of a training, without starting it."""
    from vitrail.cli.output import print_json
    from vitrail.training.dry_run import dry, dry_resume
    from vitrail.training.resumption import Place

    plan = dry_resume(resume, options.epochs or 0, Place(data, changed)) if resume else dry(data, options)
    if json:
        print_json(plan.to_dict())
    else:
        sys.stdout.write("\n".join(plan.lines()) + "\n")
    return 0


def _not_allowed(options: TrainOptions) -> list[str]:
    """Return the options that were given, except --epochs."""
    given = {field.name: getattr(options, field.name) for field in fields(options)}
    return [
        f"--{name.replace('_', '-')}" for name, one in given.items() if one is not None and name != "epochs"
    ]


def _ending(report: dict[str, Any], data: str, options: TrainOptions) -> list[str]:
    from vitrail.core.text import command

    run = report["run"]
    lines = [report["verdict"]]
    if stopped := report.get("stopped"):
        lines.append(
            f"stopped at step {stopped['step']:,} of {stopped['total']:,}; continue with: "
            f"{command('train', '--resume', run)}"
        )
    if "model" not in report and "unreported" not in report:
        return lines
    if report.get("draft"):
        lines += _outlook(report, data, options)
    return [
        *lines,
        f"model   {run}/model.safetensors  (one file, everything that prediction needs)",
        *([] if "unreported" in report else [f"report  {run}/report.html"]),
        f"next    {_next(run, report, data)}",
    ]


def _next(run: str, report: dict[str, Any], data: str) -> str:
    """Return the next command: a prediction, after pretraining the training with labels, or images to be made."""
    from vitrail.core.catalog import PRETRAIN, load
    from vitrail.core.text import command
    from vitrail.tasks.image_makers import MakesImages

    if report.get("task") == PRETRAIN:
        return command("train", "photos/", "--weights", run, "--tune", "full")
    if issubclass(load("task", report.get("task", "classify")), MakesImages):
        one = next(iter(report["data"]["splits"]["train"]))
        return command("predict", run, "--class", one, "--n", 16, "--out", "made/")
    return command("predict", run, *_example(run, data or _source_of(run)))


def _source_of(run: str) -> str:
    """Return the source of a run that goes on."""
    from vitrail.runs.run import open_run

    return open_run(run).recipe().data.source


def _example(run: str, data: str) -> list[str]:
    """Return what may be predicted next: the map of the rasters, a clip, or a picture."""
    from vitrail.data.rasters.sources import raster_files, words_of

    if raster_files(data):
        return [*words_of(data), "--out", "map.tif"]
    return ["clip.mp4"] if _takes_clips(run) else ["picture.jpg"]


def _takes_clips(run: str) -> bool:
    from vitrail.core.errors import VitrailError
    from vitrail.runs.run import open_run

    try:
        return open_run(run).recipe().model.frames > 0
    except VitrailError:  # a run that cannot be opened is told by its own command
        return False


def _outlook(report: dict[str, Any], data: str, options: TrainOptions) -> list[str]:
    from vitrail.core.text import command, span
    from vitrail.training.resolve_recipe import after_draft

    takes = span(report["full_seconds"], report["full_seconds_usual"])
    lines = []
    if report["doubts"]:
        lines.append(
            f"{report['doubts']} labels look wrong: {report['run']}/doubts.csv, with images in report.html"
        )
    return [
        *lines,
        f"Twice the images: perhaps +{100 * report['gain_from_twice']:.1f} points (a guess: half of them gave "
        f"{report['half']:.1%}).",
        f"The full fine-tune takes {takes} here: {command('train', data, *words_of(after_draft(options)))}",
    ]
