"""What a click does, as a command line and as lines of Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, get_args, get_type_hints

from vitrail.core.text import command
from vitrail.runs.train_options import TrainOptions


class Command(NamedTuple):
    """What a click does: the command line, and the lines of Python that do the same."""

    line: str
    python: str


def training(words: Sequence[str]) -> Command:
    """Return the words of a training, `train` first, as a command line and in Python."""
    verb, *rest = words
    given = dict(options_in(rest))
    data = rest[0] if rest and not rest[0].startswith("--") else ""
    resumed = given.pop("resume", None)
    if resumed is not None:
        more = f", more={given['epochs']}" if "epochs" in given else ""
        python = f"from vitrail.training.fit import resume\n\nrun = resume({resumed!r}{more})"
    else:
        options = ", ".join(f"{name}={value!r}" for name, value in given.items())
        python = f"import vitrail\n\nrun = vitrail.train({data!r}, vitrail.TrainOptions({options}))"
    return Command(command(verb, *rest), python)


def options_in(words: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the options among the words of a training: the name of the field, and its value with its type."""
    kinds = kinds_of_options()
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if not word.startswith("--"):
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name.startswith("no_") and kinds.get(name[3:]) is bool:
            yield name[3:], False
        elif kinds.get(name) is bool and not equals:
            yield name, True
        else:
            if not equals:
                value = words[place]
                place += 1
            yield name, kinds.get(name, str)(value)


def kinds_of_options() -> dict[str, type]:
    """Return the type of each option of a training; text for words from a list."""
    hints = get_type_hints(TrainOptions)
    kinds: dict[str, type] = {"resume": str, "changed": bool}
    for field in fields(TrainOptions):
        stated = [one for one in get_args(hints[field.name]) if one is not type(None)]
        plain = stated[0] if stated and isinstance(stated[0], type) else str
        kinds[field.name] = plain
    return kinds
