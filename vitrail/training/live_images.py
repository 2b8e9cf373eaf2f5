"""Draw six validation images with their labels and present predictions side by side, after every validation."""

from __future__ import annotations

from typing import Any

from PIL.Image import Image

from vitrail import plots
from vitrail.core.errors import VitrailError
from vitrail.data.batch import Batch
from vitrail.data.decode import preview
from vitrail.data.loader import ImageDataset, listed
from vitrail.data.open_image import load
from vitrail.runs.run import Run
from vitrail.runs.run_network import answering, evaluating, run_network
from vitrail.training.loop import Session

SHOWN = 6
ACROSS = 2
"""Images per row."""

LETTERS = 15
"""Height of the letters of a file name, in pixels."""

WIDTH = 1280
"""Largest side of the sheet, in pixels."""


class Live:
    """Draws the same few images, spread over the validation split, for a task that can draw (`glance`)."""

    def __init__(self, run: Run, validation: ImageDataset) -> None:
        self.run, self.validation = run, validation
        self.glance: Any = getattr(validation.targets, "glance", None)
        self.places = spread(len(validation.rows), SHOWN) if self.glance is not None else []
        self.drawn = False

    def draw(self, session: Session) -> list[str]:
        """Draw the images into the run folder. The first time, return a line with the path."""
        network = session.evaluated()
        compute = answering(session.task, network, size=network.encoder.image_size)
        batches = [batch for place in self.places if (batch := self._batch(place)) is not None]
        drawings = []
        with evaluating(network):
            for batch, output in run_network(compute, batches, session.accelerator.device, session.precision):
                image = self._image(batch.ids[0])
                drawing = self.glance(image, output, batch.geometry[0], batch.targets[0])
                drawings.append(plots.titled(drawing, batch.ids[0].rpartition("/")[2], LETTERS))
        if not drawings:
            return []
        rows = [plots.beside(*drawings[i : i + ACROSS]) for i in range(0, len(drawings), ACROSS)]
        sheet = plots.below(*rows)
        sheet.thumbnail((WIDTH, WIDTH))
        plots.write_image(self.run.live_path, sheet)
        if self.drawn:
            return []
        self.drawn = True
        return [
            f"Validation images with label and prediction, updated after each epoch: {self.run.live_path}"
        ]

    def _batch(self, place: int) -> Batch[Any] | None:
        batch = listed([self.validation[place, -1]])
        return None if isinstance(batch, VitrailError) else batch

    def _image(self, id: str) -> Image:
        row = next(row for row in self.validation.rows if row.id == id)
        steps = self.validation.preprocess
        image = load(self.validation.root, row.path, steps.channels, row.part, raw=steps.raw).image
        return plots.of_array(preview(image) if steps.raw else image)


def spread(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` indices, evenly spread over `count`."""
    most = min(count, wanted)
    return [(2 * i + 1) * count // (2 * most) for i in range(most)]
