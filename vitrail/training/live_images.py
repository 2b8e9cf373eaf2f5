"""Six validation images as the network answers them now, truth beside answer: drawn anew after every validation."""

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
"""Images in a row."""

LETTERS = 15
"""Pixels of the letters of a file's name."""

WIDTH = 1280
"""Pixels of the sheet, at most."""


class Live:
    """Draws images of the validation split, spread over it and always the same, for a task that draws (`glance`)."""

    def __init__(self, run: Run, validation: ImageDataset) -> None:
        self.run, self.validation = run, validation
        self.glance: Any = getattr(validation.targets, "glance", None)
        self.places = spread(len(validation.rows), SHOWN) if self.glance is not None else []
        self.drawn = False

    def draw(self, session: Session) -> list[str]:
        """Draw the images into the run; the first time, return a line that says where they are."""
        network = session.evaluated()
        compute = answering(session.task, network, size=network.encoder.image_size)
        batches = [batch for place in self.places if (batch := self._batch(place)) is not None]
        shown = []
        with evaluating(network):
            for batch, output in run_network(compute, batches, session.accelerator.device, session.precision):
                image = self._image(batch.ids[0])
                drawn = self.glance(image, output, batch.geometry[0], batch.targets[0])
                shown.append(plots.titled(drawn, batch.ids[0].rpartition("/")[2], LETTERS))
        if not shown:
            return []
        rows = [plots.beside(*shown[i : i + ACROSS]) for i in range(0, len(shown), ACROSS)]
        sheet = plots.below(*rows)
        sheet.thumbnail((WIDTH, WIDTH))
        plots.write_image(self.run.live_path, sheet)
        first, self.drawn = not self.drawn, True
        return [
            f"Validation images, truth beside answer, drawn anew after each epoch: {self.run.live_path}"
        ] * first

    def _batch(self, place: int) -> Batch[Any] | None:
        found = listed([self.validation[place, -1]])
        return None if isinstance(found, VitrailError) else found

    def _image(self, id: str) -> Image:
        row = next(row for row in self.validation.rows if row.id == id)
        steps = self.validation.preprocess
        image = load(self.validation.root, row.path, steps.channels, row.part, raw=steps.raw).image
        return plots.of_array(preview(image) if steps.raw else image)


def spread(count: int, wanted: int) -> list[int]:
    """Return at most so many places, evenly spread over `count`."""
    most = min(count, wanted)
    return [(2 * i + 1) * count // (2 * most) for i in range(most)]
