"""Studies with one button: the words of their command, and where their result is. No heavy import."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vitrail.core.errors import RunError, SettingError
from vitrail.studio.workspace import safe_name

OF_DATA = ("duel", "curve")
"""Studies of a data set."""

OF_RUN = ("labels", "robustness", "again")
"""Studies of a trained model."""

TIMES = ("2m", "10m", "30m", "2h")
"""Times of a duel that can be chosen."""


def checked_kind(kind: str) -> str:
    """Return the kind of a study. RunError if there is none with this name."""
    if kind not in (*OF_DATA, *OF_RUN):
        raise RunError(f"There is no study called {kind!r}. Choose one on the page of a data set or a model.")
    return kind


def words_of(kind: str, about: str, given: Mapping[str, str], out: Path) -> list[str]:
    """Return the words after `vitrail` of a study about a place; `out` is where it writes a page of its own.

    Raises:
        SettingError: a choice of the form is missing, or is none that is offered.
    """
    match kind:
        case "duel":
            return _duel(about, given, out)
        case "curve":
            models = _names(given)
            return [
                "curve",
                about,
                *(["--models", models] if models else []),
                "--html",
                str(out / "curve.html"),
            ]
        case "labels":
            return ["fix", about]
        case "robustness":
            return _robustness(about, given, out)
    return ["reproduce", about, "--out", f"{about}-again-{out.parent.name[:6]}"]


def page_of(kind: str, folder: Path) -> Path | None:
    """Return the finished page of a study by the folder of its command; None if it wrote none."""
    name = {"curve": "curve.html", "duel": "compare.html", "robustness": "compare.html"}.get(kind, "")
    found = sorted((folder / "out").rglob(name)) if name else []
    return found[0] if found else None


def _duel(data: str, given: Mapping[str, str], out: Path) -> list[str]:
    models = _names(given)
    if models.count(",") < 1:
        raise SettingError("A duel needs two networks. Write both names, with a comma between.")
    time = given.get("time", TIMES[1])
    if time not in TIMES:
        raise SettingError(f"The time of a duel is one of {', '.join(TIMES)}.")
    scratch = ["--weights", "none"] if given.get("scratch") else []
    return ["compare", data, "--models", models, "--time", time, *scratch, "--out", str(out / "comparison")]


def _robustness(run: str, given: Mapping[str, str], out: Path) -> list[str]:
    other = given.get("other", "")
    if not other:
        return ["eval", run, "--robustness"]
    place = str(out / "comparison")
    return ["compare", "--out", place, "--robustness", "--runs", run, f"runs/{safe_name(other)}"]


def _names(given: Mapping[str, str]) -> str:
    """Return the names of networks that a form holds, without what could be another option."""
    names = [one.strip() for one in given.get("models", "").split(",") if one.strip()]
    if any(one.startswith("-") for one in names):
        raise SettingError("The name of a network does not begin with a dash. Look at: vitrail models")
    return ",".join(names)
