"""The objects that all parts of a training share: run, recipe, images and initial network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vitrail.data.loader import ImageDataset
from vitrail.data.manifest import TRAIN, Manifest
from vitrail.runs.recipe import Recipe
from vitrail.runs.run import Run
from vitrail.training.initialization import InitialState
from vitrail.training.loop import Event
from vitrail.training.progress import Listener
from vitrail.training.session import training_images


@dataclass(frozen=True)
class RunContext:
    """The run of a training, its inputs and its listeners."""

    run: Run
    recipe: Recipe
    manifest: Manifest
    start: InitialState
    listeners: Sequence[Listener]
    cost: float = 0.0  # seconds of a step, measured before training
    spent: float = 0.0  # seconds for computing the initial head

    def pictures(self, split: str) -> ImageDataset:
        """Return the images of one split, with augmentation for the training split."""
        task, preprocess = self.start.task, self.start.preprocess
        if split == TRAIN:
            return training_images(self.recipe, self.manifest, task, preprocess)
        truths = task.deployed_task(self.recipe.task.name)[1]
        return ImageDataset(self.manifest.rows(split), self.manifest.root, preprocess, truths)

    def publish(self, event: Event) -> None:
        """Pass an event on to every listener."""
        for listener in self.listeners:
            listener(event)
