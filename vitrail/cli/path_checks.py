"""Refuses what is not there before anything heavy is imported: a slip of the finger costs no seconds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vitrail.core.environment import expanded
from vitrail.core.errors import DataError, RunError, nearest


def model_there(model: str) -> None:
    """Refuse (RunError) a run folder or model file that does not exist."""
    path = Path(model)
    if not path.exists():
        raise RunError(f"{model} does not exist.{_near(path)} Name a run folder or a model file.")


def run_there(run: str) -> None:
    """Refuse (RunError) a run folder that does not exist."""
    path = Path(run)
    if not path.exists():
        raise RunError(f"{run} does not exist.{_near(path)} Name a run folder.")


def data_there(data: str) -> None:
    """Refuse (DataError) a data set that neither exists nor is built in."""
    path = expanded(data)
    if path.exists():
        return
    from vitrail.data.builtin import names

    if data not in names():
        raise DataError(
            f"{data} does not exist.{_near(path, names())} Give a folder of images, one folder a class, or a "
            f"built-in set: {', '.join(names())}."
        )


def _near(path: Path, built_in: Iterable[str] = ()) -> str:
    """Return a hint at what lies beside, or is built in, and is called almost so."""
    try:
        beside = [one.name for one in path.parent.iterdir()]
    except OSError:  # nothing there, or nothing that may be seen
        return ""
    found = nearest(path.name, [*beside, *(built_in if path.parent == Path() else ())])
    return f" Did you mean {str(path.with_name(found))!r}?" if found else ""
