"""Writes a run's best network as its model file."""

from __future__ import annotations

from vitrail.models.create import describe
from vitrail.runs.folder import Run
from vitrail.runs.model_file import Header, write_model
from vitrail.runs.proof import answer
from vitrail.runs.recipe import Recipe
from vitrail.training.begin import Start


def write_best(run: Run, recipe: Recipe, start: Start) -> None:
    """Write model.safetensors: weights, and the header with architecture, task, preprocessing and proof."""
    task = start.task
    header = Header(
        name=recipe.model.name,
        encoder=describe(start.network.encoder),
        task={"name": recipe.task.name, "labels": list(task.labels), "settings": task.settings.model_dump()},
        preprocess=start.preprocess.to_dict(),
        weights=start.origin,
        licence=start.licence,
        proof=answer(start.network, task, start.preprocess),
    )
    write_model(run.model_path, start.network, header)
