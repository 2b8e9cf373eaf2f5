"""Draw six validation images with their labels and present predictions, after every validation."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL.Image import Image

from vitrail import plots
from vitrail.core.errors import VitrailError
from vitrail.data.batch import Batch
from vitrail.data.loader import ImageDataset, listed, load_for
from vitrail.data.preprocess import strip_numbers
from vitrail.data.view import scaled
from vitrail.explainers.rollout import Rollout
from vitrail.explainers.target import Subject
from vitrail.explainers.to_original import onto_original
from vitrail.layers.heads import Output
from vitrail.runs.network import Network
from vitrail.runs.run import Run
from vitrail.runs.run_network import answering, evaluating, run_network
from vitrail.tasks.base import Ask, Task
from vitrail.tasks.image_makers import MakesImages
from vitrail.training.loop import Session

SHOWN = 6
ACROSS = 2
"""Images per row."""

NARROW = 3
"""Images per row where truth is only a word."""

SIDE = 300
"""Largest side of such an image, in pixels."""

SHARE = 0.05
"""Largest share of the training that such drawings take; the last one is always made."""

LETTERS = 15
"""Height of the letters of a file name, in pixels."""

WIDTH = 1280
"""Largest side of the sheet, in pixels."""


class Seen(NamedTuple):
    """A batch of one image, and what the network says of it."""

    task: Task[Any, Any]
    network: Network
    batch: Batch[Any]
    output: Output

    def heat(self, image: Image, prediction: Any) -> Image:
        """Return a small image with where the network looked; of a clip, a strip of the frames that `image` shows."""
        small = scaled(self.batch.geometry[0], SIDE)
        subject = Subject(self.network, self.task, prediction, "")
        grid = Rollout()(subject, self.batch.images)[0].float().numpy()
        shown = grid[strip_numbers(len(grid))] if grid.ndim == 3 else grid[None]
        maps = [onto_original(np.maximum(one, 0), small, subject.spec.overlap_margin) for one in shown]
        values = np.concatenate(maps, 1)
        height, width = values.shape
        drawing = plots.heat(image.resize((width, height)), values)
        drawing.thumbnail((SIDE, SIDE))
        return drawing


class Live:
    """Draws the same few images, spread over the validation split.

    A task may draw truth and prediction in a way that is quick (`glance`), or images that its network makes (`sheet`).
    For others the prediction is drawn as for
    `vitrail predict` (`render`), with the label above, and beside it where the network looked, if attention shows that.
    """

    def __init__(self, run: Run, validation: ImageDataset) -> None:
        self.run, self.validation = run, validation
        self.glance: Any = getattr(validation.targets, "glance", None)
        self.places = spread(len(validation.rows), SHOWN)
        self.drawn, self.began, self.spent = False, time.monotonic(), 0.0

    def draw(self, session: Session) -> list[str]:
        """Draw the images into the run folder. The first time, return a line with the path."""
        began = time.monotonic()
        last = session.step >= session.schedule.total
        costly = self.glance is None and self.spent > SHARE * (began - self.began)
        makes = isinstance(session.task, MakesImages)
        silent = not session.task.answers and not makes and self.glance is None
        if silent or (self.drawn and costly and not last):
            return []
        sheet = (
            self._made(session, session.task)
            if isinstance(session.task, MakesImages)
            else self._sheet(session)
        )
        if sheet is None:
            return []
        sheet.thumbnail((WIDTH, WIDTH))
        plots.write_image(self.run.live_path, sheet)
        self.spent += time.monotonic() - began
        if self.drawn:
            return []
        self.drawn = True
        if makes:
            return [
                f"Images that the network makes of each class, made again now and then: {self.run.live_path}"
            ]
        what = "label and prediction" if session.task.answers else "hidden patches, guess and truth"
        return [f"Validation images with {what}, updated after each epoch: {self.run.live_path}"]

    def _made(self, session: Session, task: MakesImages) -> Image:
        """Return images that the network makes."""
        network, steps = session.evaluated(), self.validation.preprocess
        with torch.inference_mode(), evaluating(network):
            return task.sheet(network, (steps.channels, *steps.size))

    def _sheet(self, session: Session) -> Image | None:
        """Return the images in rows, or None if none can be read."""
        drawings = self._drawings(session)
        if not drawings:
            return None
        looks = self.glance is not None or Rollout.fits(session.evaluated())
        across = ACROSS if looks else NARROW
        rows = [plots.beside(*drawings[i : i + across]) for i in range(0, len(drawings), across)]
        return plots.below(*rows)

    def _drawings(self, session: Session) -> list[Image]:
        network = session.evaluated()
        compute = answering(session.task, network, size=network.encoder.image_size)
        batches = [batch for place in self.places if (batch := self._batch(place)) is not None]
        drawings = []
        with evaluating(network):
            for batch, output in run_network(compute, batches, session.accelerator.device, session.precision):
                image = self._image(batch.ids[0])
                if self.glance is None:
                    drawings.append(self._drawing(Seen(session.task, network, batch, output), image))
                else:
                    drawing = self.glance(image, output, batch.geometry[0], batch.targets[0])
                    drawings.append(plots.titled(drawing, batch.ids[0].rpartition("/")[2], LETTERS))
        return drawings

    def _drawing(self, seen: Seen, image: Image) -> Image:
        task, id = seen.task, seen.batch.ids[0]
        prediction = task.decode(seen.output, seen.batch.geometry[:1], Ask())[0]
        drawing = task.render(image, prediction)
        drawing.thumbnail((SIDE, SIDE))
        if Rollout.fits(seen.network):
            drawing = plots.beside(drawing, seen.heat(image, prediction))
        row = next(row for row in self.validation.rows if row.id == id)
        return plots.titled(drawing, f"label: {task.words(row)}", LETTERS)

    def _batch(self, place: int) -> Batch[Any] | None:
        batch = listed([self.validation[place, -1]])
        return None if isinstance(batch, VitrailError) else batch

    def _image(self, id: str) -> Image:
        row = next(row for row in self.validation.rows if row.id == id)
        steps = self.validation.preprocess
        image = load_for(steps, self.validation.root, row)
        return plots.of_array(steps.visible(image))


def spread(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` indices, evenly spread over `count`."""
    most = min(count, wanted)
    return [(2 * i + 1) * count // (2 * most) for i in range(most)]
