"""vitrail compare."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Annotated, Literal

from cyclopts import Parameter

from vitrail.data.options import DEFAULTS, LayoutOptions


def compare(
    data: str = "",
    /,
    *,
    models: str = "",
    runs: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    time: str | None = None,
    epochs: int | None = None,
    rounds: int | None = None,
    weights: str | None = None,
    tune: Literal["draft", "head", "full", "scratch"] | None = None,
    imgsz: str | None = None,
    batch: int | None = None,
    recipe: str | None = None,
    augment: Literal["none", "light", "flip_crop", "trivial", "rand", "three", "scene"] | None = None,
    mixup: float | None = None,
    cutmix: float | None = None,
    own_augmentation: bool = False,
    region: float = 1.0,
    seed: int = 0,
    options: Annotated[LayoutOptions, Parameter(name="*")] = DEFAULTS,
    device: str = "auto",
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
        vitrail compare photos/ --models vit_s14=vit.safetensors,resnet50=cnn.safetensors --tune draft
        vitrail compare --runs runs/a runs/b

    Parameters
    ----------
    data
        images with their truth, as for training; with --runs: new images to compare them on
    models
        networks, with commas between: names (see: vitrail models), NAME=WEIGHTS, or files of weights
    runs
        runs or model files that are trained already
    time
        of all trainings together, such as 2h; 30m by default
    epochs
        of every training, in place of a time; then the learning rates are the recipes'
    rounds
        folds, or seeds on a given split; by default 10 or 5, fewer where the time asks for it
    weights
        where all start: none (from scratch), or auto: published weights where there are some
    tune
        what is trained: full, head, scratch, or draft (heads on frozen features, in seconds)
    imgsz
        side of the input in pixels, for all
    batch
        images a step, for all
    recipe
        named recipe or YAML file, for all; by default each family has its own
    augment
        augmentation of all; by default that of the first network
    mixup
        strength of Mixup for all
    cutmix
        strength of CutMix for all
    own_augmentation
        leave each family its own augmentation; then nothing is said of the architectures
    region
        points up to which a difference does not matter
    seed
        draws the folds and the trainings
    device
        auto, cpu, cuda, mps
    out
        folder for the comparison, runs/compare-<data> by default
    resume
        go on with this comparison, which was interrupted
    json
        print one JSON value, for programs
    """
    from pathlib import Path

    from vitrail.cli.output import print_json, say
    from vitrail.cli.path_checks import data_there, model_there
    from vitrail.core.errors import UsageError

    for model in runs:
        model_there(model)
    if data:
        data_there(data)
    if runs and models:
        raise UsageError("--models trains networks and --runs takes trained ones. Give one of them.")
    from vitrail.runs.train_options import TrainOptions
    from vitrail.studies.compare import comparison

    _refuse_idle(
        bool(runs), tune == "draft", {"time": time, "epochs": epochs, "rounds": rounds, "models": models}
    )
    if resume:
        if data or models or runs:
            raise UsageError("--resume goes on with what was asked for. Leave the other words out.")
        found = comparison.resume(Path(resume), say)
    elif runs:
        found = comparison.compare_runs(runs, data, options, region, device, out)
    else:
        comparison.refuse_missing(data, models)
        stated = {field.name: getattr(options, field.name) for field in fields(LayoutOptions)}
        shared = TrainOptions(
            weights=weights, tune=tune, imgsz=imgsz, batch=batch, recipe=recipe, augment=augment, mixup=mixup,
            cutmix=cutmix, seed=seed, device=device, **{key: one for key, one in stated.items() if one is not None},
        )  # fmt: skip
        asked = comparison.Asked(
            data, models, time or "30m", epochs, rounds, region, own_augmentation, shared
        )
        found = comparison.compare(asked, say, out)
    if json:
        print_json(found.report)
        return 0
    sys.stdout.write("\n".join(_lines(found.report)) + "\n")
    say(f"page    {found.folder}/compare.html")
    return 0


def _refuse_idle(runs: bool, draft: bool, given: dict[str, object]) -> None:
    """Refuse (UsageError) options that say nothing here."""
    from vitrail.core.errors import UsageError

    idle = ["time", "epochs", "rounds"] if runs else ["time", "epochs"] if draft else []
    what = "trained models" if runs else "frozen networks"
    if names := [f"--{name}" for name in idle if given[name]]:
        raise UsageError(
            f"{' and '.join(names)} changes nothing for {what}, which are not trained here. Leave it out."
        )
    if given["time"] and given["epochs"]:
        raise UsageError("--time and --epochs both say how long trainings are. Give one of them.")


def _lines(report: dict[str, object]) -> list[str]:
    from vitrail.cli.output import table
    from vitrail.studies.compare.sentences import HEAD, notes_of, table_of

    verdict = report["verdict"]
    assert isinstance(verdict, list)
    rows = table_of(report)
    return [*verdict, "", table(list(HEAD), rows, right=range(3, len(HEAD))), "", *notes_of(report)]
