"""Check that paths exist before heavy imports, so that a typing error is reported at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vitrail.core.environment import expanded
from vitrail.core.errors import DataError, RunError, nearest


def model_there(model: str) -> None:
    """Raise a RunError if a run folder or model file does not exist."""
    path = Path(model)
    if not path.exists():
        raise RunError(f"{model} does not exist.{_near(path)} Name a run folder or a model file.")


def run_there(run: str) -> None:
    """Raise a RunError if a run folder does not exist."""
    path = Path(run)
    if not path.exists():
        raise RunError(f"{run} does not exist.{_near(path)} Name a run folder.")


def data_there(data: str) -> None:
    """Raise a DataError if a data set neither exists nor is built in."""
    path = expanded(data)
    if path.exists():
        return
    from vitrail.data.builtin import names

    if data not in names():
        raise DataError(
            f"{data} does not exist.{_near(path, names())} Give a folder of images, one folder per class, or a "
            f"built-in set: {', '.join(names())}."
        )


def _near(path: Path, built_in: Iterable[str] = ()) -> str:
    """Return a hint: a file next to it, or a built-in data set, with a similar name."""
    try:
        beside = [one.name for one in path.parent.iterdir()]
    except OSError:  # the parent does not exist or is not readable
        return ""
    found = nearest(path.name, [*beside, *(built_in if path.parent == Path() else ())])
    return f" Did you mean {str(path.with_name(found))!r}?" if found else ""
