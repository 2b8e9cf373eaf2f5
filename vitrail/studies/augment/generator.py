"""A run that makes images, as the gate needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vitrail.core.errors import DataError
from vitrail.evaluate.new_data import training_rows
from vitrail.infer.made_files import Recipe, write_made
from vitrail.infer.made_images import made_images, making_of, place_of
from vitrail.infer.predictor import Predictor
from vitrail.studies.augment.gate import Generator


def generator_of(model: str, name: str, seed: int, device: str) -> Generator:
    """Open a model that makes images of a class.

    Raises:
        RunError: it makes no images.
        UnknownNameError: it does not know the class.
        DataError: it does not tell which images it learned from, so that none could be held out.
    """
    predictor = Predictor(model, device)
    making = making_of(predictor)
    place_of(predictor, name)
    learned = training_rows(model)
    if learned is None:
        raise DataError(
            f"{model} does not tell which images it learned from, and the test images must be new to it. Name the "
            "folder of its run."
        )

    def write(folder: Path, number: int) -> Sequence[Path]:
        how = {key: value for key, value in asdict(making).items() if key != "strength"}
        recipe = Recipe.of(predictor.path, name, seed, how)
        return write_made(folder, recipe, made_images(predictor, name, number, seed, making=making), number)

    return Generator(model, predictor.labels, learned, write)
