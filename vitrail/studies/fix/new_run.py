"""Write the refitted model as a run of its own: calibrated and scored on cached features, with the usual report."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from vitrail.core.text import command, quoted
from vitrail.data.manifest import TEST
from vitrail.evaluate.collect_answers import scope_of
from vitrail.infer.predictor import Predictor
from vitrail.metrics.intervals import Interval
from vitrail.reports.refit_report import write_refit_report
from vitrail.runs.image_changes import look_event
from vitrail.runs.network import build_network, build_task
from vitrail.runs.run import Run, create_run
from vitrail.studies.fix.frozen_network import FrozenNetwork, evaluated
from vitrail.studies.fix.refit import Comparison, Refitted
from vitrail.studies.fix.run_images import RunImages
from vitrail.tasks.result import Column, Number, Result, Table, TableSection
from vitrail.training.checkpointing import write_best


def write_run(images: RunImages, network: FrozenNetwork, refitted: Refitted, out: str, seconds: float) -> Run:
    """Write a new run with the new head and the labels as they are now; the old run stays as it is."""
    head, task = refitted.head, network.start.task
    fitted = evaluated(task, images.now, *refitted.learned).calibrate()
    settings = {**network.recipe.task.settings, **fitted}
    task = build_task(network.recipe.task.name, task.truth, settings)
    assembled = build_network(network.frozen.encoder, task)
    probe: Any = task.probe
    head.put_into(probe.layer(assembled.head))
    new = network.recipe.task.model_copy(update={"settings": settings})
    recipe = network.recipe.model_copy(update={"task": new})
    run = create_run(recipe, out or f"{images.run.folder}-fixed", quoted(sys.argv))
    images.now.write(run.manifest_path)
    look = look_event(images.now.root, images.examined.looked)
    run.log("fixed", {"parent": images.run.folder.name, **look, **refitted.comparison.to_dict()})
    write_best(run, recipe, replace(network.start, task=task, network=assembled))
    evaluation = evaluated(task, images.now, *refitted.tests)
    result: Result = probe.result(evaluation, scope_of(images.now, TEST))
    result = with_comparison(result, refitted.comparison)
    again = command("fix", images.run.folder.name, "--apply", "fix.csv")
    write_refit_report(run, images.now, Predictor(run.folder), result, (again, seconds))
    return run


def with_comparison(result: Result, found: Comparison) -> Result:
    """Return a result with the comparison before and after as its first section."""
    section = comparison_section(found)
    details = {**result.details, "fix": found.to_dict()}
    return result._replace(sections=(section, *result.sections), details=details)


def comparison_section(found: Comparison) -> TableSection:
    """Return the scores before and after, their difference, and how far they can be trusted."""
    low, high = found.difference.interval()
    rows = (
        ("labels as the run saw them", found.tested, _number(found.before)),
        ("labels as decided", found.tested, _number(found.after)),
        ("difference, paired", found.tested, Number(found.difference.value, low, high)),
    )
    columns = (Column("head"), Column("test images", right=True), Column("right", right=True, spread=True))
    return TableSection("Before and after the decisions", Table(columns, rows), " ".join(found.lines()))


def _number(share: Interval) -> Number:
    return Number(share.value, share.low, share.high)
