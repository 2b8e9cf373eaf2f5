"""The errors a user may meet: each names the thing and ends with the way out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from shlex import quote

from vitrail.core.text import printable


class VitrailError(Exception):
    """A mistake that a user can mend; the command line prints its text, without a traceback, and exits 1."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


class SettingError(VitrailError):
    """A setting is unknown, of the wrong kind or out of range."""


class UsageError(SettingError):
    """The words of a command are wrong in themselves, whatever they name; the command line exits 2."""


class InsufficientMemoryError(SettingError):
    """What was asked needs more memory than there is; something smaller would do."""


class DataError(VitrailError):
    """A file or a data set cannot be used as it stands."""


class UndecidedError(DataError):
    """A source can be read in ways that contradict each other; `ways` are what each means, and the option for it."""

    def __init__(self, text: str, ways: Sequence[tuple[str, tuple[str, str]]]) -> None:
        self.question, self.ways = text, tuple(ways)
        said = " ".join(f"To take {what}: --{name} {quote(value)}" for what, (name, value) in ways)
        super().__init__(f"{text} {said}")


class MissingExtraError(DataError):
    """A file can be read once a library is installed: what was found of it today does not hold tomorrow."""


class RunError(VitrailError):
    """A run folder or a model file is missing, broken or of another version."""


class WeightsError(VitrailError):
    """A checkpoint cannot be had, read or fitted to the network."""


class UnknownNameError(SettingError):
    """A name that nobody registered; the message names the nearest one."""

    def __init__(self, kind: str, name: str, known: Iterable[str], see: str = "") -> None:
        self.nearest = nearest(name, known)
        hint = f" Did you mean {self.nearest!r}?" if self.nearest else ""
        super().__init__(f"There is no {kind} called {name!r}.{hint}{' ' + see if see else ''}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like `name`, or None where none is like it."""
    by_lower = {k.lower(): k for k in known}
    found = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None
