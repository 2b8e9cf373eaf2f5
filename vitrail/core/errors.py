"""The errors for users: every message names the cause and ends with a solution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from shlex import quote

from vitrail.core.text import printable


class VitrailError(Exception):
    """An error that the user can correct; the command line prints its text without a traceback and exits with 1."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


class SettingError(VitrailError):
    """A setting is unknown, of the wrong kind or out of range."""


class UsageError(SettingError):
    """A command is wrong in itself, independent of any file; the command line exits with 2."""


class InsufficientMemoryError(SettingError):
    """The request needs more memory than the machine has; a smaller one would fit."""


class NoEvidenceError(SettingError):
    """A method that fits a network finds nothing that it could show for one prediction; others may."""


class DataError(VitrailError):
    """A file or a data set cannot be used in its present form."""


class UndecidedError(DataError):
    """A source has several readings that contradict each other. `ways` holds the meaning of each and its option."""

    def __init__(self, text: str, ways: Sequence[tuple[str, tuple[str, str]]]) -> None:
        self.question, self.ways = text, tuple(ways)
        choices = " ".join(f"To take {what}: --{name} {quote(value)}" for what, (name, value) in ways)
        super().__init__(f"{text} {choices}")


class MissingExtraError(DataError):
    """A file needs an optional library. Findings about it change once the library is installed."""


class RunError(VitrailError):
    """A run folder or a model file is missing, broken or of another version."""


class WeightsError(VitrailError):
    """A checkpoint is not available, cannot be read, or does not fit the network."""


class UnknownNameError(SettingError):
    """An unknown name; the message suggests the most similar one."""

    def __init__(self, kind: str, name: str, known: Iterable[str], see: str = "") -> None:
        self.nearest = nearest(name, known)
        hint = f" Did you mean {self.nearest!r}?" if self.nearest else ""
        more = f" {see}" if see else ""
        super().__init__(f"There is no {kind} called {name!r}.{hint}{more}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to `name`, or None."""
    by_lower = {k.lower(): k for k in known}
    matches = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[matches[0]] if matches else None


class TrainingError(VitrailError):
    """The training cannot continue."""
