"""Check that paths exist before heavy imports, so that a typing error is reported at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vitrail.core.environment import expanded
from vitrail.core.errors import DataError, RunError, nearest


def model_there(model: str) -> bool:
    """Return whether a model is published weights, by path or name; RunError if it is neither this nor a path.

    Whether weights of the hub exist is asked later, by `model_file`.
    """
    from vitrail.runs.model_source import is_published, nearest_name

    path = expanded(model)
    if is_published(model):
        return True
    if path.exists():
        return False
    hint = _near(path)
    if not hint and (near := nearest_name(model)):
        hint = f" Did you mean {near!r}?" if "." in near else f" Did you mean the network {near!r}?"
    raise RunError(f"{model} does not exist.{hint} Name a run folder, a model file or published weights.")


def model_file(model: str) -> str:
    """Return the model file made of published weights, after saying what was assumed; other paths unchanged."""
    if not model_there(model):
        return model
    from vitrail.cli.output import say
    from vitrail.runs.published import published_model

    found = published_model(model)
    for note in found.notes:
        say(note)
    return str(found.path)


def images_named(model: str, data: str | None, way: str) -> None:
    """Raise a RunError, with the command `way`, for published weights without images: they belong to no run."""
    if not data and model_there(model):
        raise RunError(
            f"{model} names published weights, which have no images of their own. Name some: {way}"
        )


def run_there(run: str) -> None:
    """Raise a RunError if a run folder does not exist."""
    path = Path(run)
    if not path.exists():
        raise RunError(f"{run} does not exist.{_near(path)} Name a run folder.")


def data_there(data: str) -> None:
    """Raise a DataError if a data set neither exists nor is built in."""
    path = expanded(data)
    from vitrail.data.rasters.sources import common, raster_files

    if files := raster_files(data):
        common(files)
        return
    if path.exists():
        return
    from vitrail.data.builtin import names

    if data not in names():
        raise DataError(
            f"{data} does not exist.{_near(path, names())} Give a folder of images, one folder per class, or a "
            f"built-in set: {', '.join(names())}."
        )


def image_there(image: str) -> None:
    """Raise a DataError if an image, or a folder or archive of images, does not exist; patterns are not looked up."""
    path = expanded(image)
    if not path.exists() and not any(sign in image for sign in "*?["):
        raise DataError(f"{image} does not exist.{_near(path)} Name an image.")


def _near(path: Path, built_in: Iterable[str] = ()) -> str:
    """Return a hint: a file next to it, or a built-in data set, with a similar name."""
    try:
        beside = [one.name for one in path.parent.iterdir()]
    except OSError:  # the parent does not exist or is not readable
        return ""
    found = nearest(path.name, [*beside, *(built_in if path.parent == Path() else ())])
    return f" Did you mean {str(path.with_name(found))!r}?" if found else ""
