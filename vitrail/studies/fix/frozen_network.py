"""The frozen network whose features tell label errors: one that has not learned from the labels, where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from vitrail.core.errors import SettingError, WeightsError
from vitrail.core.text import command
from vitrail.data.batch import Geometry
from vitrail.data.manifest import Manifest, Row
from vitrail.infer.predictor import Predictor
from vitrail.runs.device import device_for
from vitrail.runs.network import build_network, build_task
from vitrail.runs.recipe import Recipe, TaskSettings
from vitrail.runs.run import Run
from vitrail.runs.task_wrapping import unwrap
from vitrail.tasks.base import Task
from vitrail.tasks.probe import DenseProbe, PerImageProbe, ScoresLabels, Vectors
from vitrail.tasks.result import Evaluation
from vitrail.training.draft import ProbeData, probe_data
from vitrail.training.feature_cache import Frozen
from vitrail.training.initialization import InitialState, build_from_recipe
from vitrail.training.loop import Event
from vitrail.training.progress import Listener

LEARNED = (
    "The network learned from these labels itself, so it doubts fewer of them than one that did not: its memory of a "
    "wrong label looks like knowledge."
)


@dataclass(frozen=True)
class FrozenNetwork:
    """A network whose features are cached, the task with its probe, the recipe of a head on it, and notes.

    `abstains` is whether the model of the run knows label sets and "none of these".
    """

    start: InitialState
    frozen: Frozen
    recipe: Recipe
    notes: tuple[str, ...]
    abstains: bool = False

    @property
    def probe(self) -> Any:
        """The probe of the task, which scores labels."""
        return self.start.task.probe

    def vectors(self, manifest: Manifest, rows: Sequence[Row], listeners: Sequence[Listener] = ()) -> Vectors:
        """Return the features of rows: (n, d). Those that are known are not computed again."""
        return self.frozen.vectors(manifest, rows, partial(_told, listeners))

    def data(self, manifest: Manifest, rows: list[Row]) -> ProbeData:
        """Return targets and groups of rows as numbers."""
        return probe_data(self.start, self.probe, rows, manifest)


def open_network(run: Run, device: str = "auto") -> FrozenNetwork:
    """Open the network that a run started from if it is pretrained, else the run's own.

    Raises:
        SettingError: the task cannot tell which of its targets are wrong.
    """
    predictor, recipe = Predictor(run.folder), run.recipe()
    inner = unwrap({key: predictor.header.task[key] for key in ("name", "settings")}).task
    start, notes = _start(predictor, recipe, inner)
    name, settings = inner["name"], dict(inner["settings"])
    frozen = Frozen(start.network.encoder, start.preprocess, device_for(device))
    if "pool" in settings:
        settings["pool"] = frozen.kind
    task = build_task(name, predictor.task.truth, settings)
    start = replace(start, task=task, network=build_network(frozen.encoder, task))
    refuse_unable(start, name, recipe.data.source)
    recipe = recipe.model_copy(
        update={
            "task": TaskSettings(name=name, settings=settings),
            "training": recipe.training.model_copy(update={"tune": "head"}),
        }
    )
    abstains = getattr(predictor.task, "abstention", None) is not None
    return FrozenNetwork(start, frozen, recipe, notes, abstains)


def evaluated(task: Task[Any, Any], manifest: Manifest, rows: list[Row], logits: Vectors) -> Evaluation:
    """Return the evaluation of logits (n, k) of whole images."""
    evaluation: Evaluation = task.evaluation()
    targets = [task.read(row, manifest.root) for row in rows]
    nowhere = [Geometry((1, 1), (1, 1), (0.0, 0.0, 1.0, 1.0))] * len(rows)
    evaluation.update(rows, {"logits": torch.from_numpy(logits)}, targets, nowhere)
    return evaluation


def _start(
    predictor: Predictor, recipe: Recipe, task: dict[str, Any]
) -> tuple[InitialState, tuple[str, ...]]:
    """Return the network, and a note if it has learned from the labels."""
    header = predictor.header
    own = InitialState(
        predictor.network, predictor.task, predictor.preprocess, header.licence, header.weights
    )
    if recipe.training.tune in ("draft", "head"):
        return own, ()
    if recipe.model.weights == "none":
        return own, (LEARNED,)
    plain = recipe.model_copy(update={"task": TaskSettings(name=task["name"], settings=task["settings"])})
    try:
        return build_from_recipe(plain, predictor.task.truth), ()
    except WeightsError as error:
        return own, (f"The pretrained weights are not here any more ({error}) {LEARNED}",)


def refuse_unable(start: InitialState, name: str, source: str) -> None:
    """Raise a SettingError if the task called `name` cannot tell of an image whether its target is wrong."""
    probe: Any = start.task.probe
    dense = isinstance(probe, DenseProbe)
    if dense or not isinstance(probe, ScoresLabels) or not isinstance(probe, PerImageProbe):
        raise SettingError(
            f"The task {name} cannot tell of an image whether its target is wrong: its probe has no label_scores. "
            f"What can be checked is checked by: {command('check', source or 'IMAGES')}"
        )
    layer: Any = start.task.probe
    if layer.layer(start.network.head) is None:
        raise SettingError(
            "The head of this run has no layer that a probe can fit, so its labels cannot be compared. Make a draft: "
            f"{command('train', source or 'IMAGES', '--tune', 'draft')}"
        )


def _told(listeners: Sequence[Listener], done: int, total: int) -> None:
    for listener in listeners:
        listener(Event("features", 0, {"done": done, "total": total}))
