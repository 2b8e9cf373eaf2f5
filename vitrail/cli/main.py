"""The command line: verbs, `key=value` or `--key value`, help without heavy imports, errors as plain sentences."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vitrail import __version__
from vitrail.cli.help import overview, verb_help
from vitrail.cli.streams import prepare
from vitrail.cli.verbs import OLD_VERBS, VERBS
from vitrail.core.errors import UndecidedError, UsageError, VitrailError, nearest
from vitrail.core.files import unusable
from vitrail.core.text import quoted

if TYPE_CHECKING:
    from cyclopts import App

ALIASES = {
    "img_size": "imgsz",
    "img-size": "imgsz",
    "image_size": "imgsz",
    "batch_size": "batch",
    "batch-size": "batch",
    "wd": "weight-decay",
    "name": "out",
    "output": "out",
}
"""Option names of other tools, and their names here."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 success, 1 an error with a hint, 2 wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Pillow warns about unusual tags; the check reports those that matter, file by file.
    warnings.filterwarnings("ignore", module="PIL")
    outlet = prepare()
    try:
        code = run(given)
    except KeyboardInterrupt:
        _say("Interrupted.")
        code = 130
    sys.stdout.flush()
    if (
        outlet and outlet.lost and not isinstance(outlet.error, BrokenPipeError)
    ):  # a reader such as `head` may close the pipe
        why = outlet.error.strerror if outlet.error else ""
        _say(f"Standard output could not be written: {why}. The rest of the output is lost.")
        code = code or 1
    sys.exit(code)


def run(given: list[str]) -> int:
    """Run one command and return its exit code."""
    if not given or given[0] in {"-h", "--help", "help"}:
        _print(verb_help(given[1]) if len(given) > 1 and given[1] in VERBS else overview())
        return 0
    if given[0] in {"-V", "--version", "version"}:
        _print(f"vitrail {__version__}")
        return 0
    verb = OLD_VERBS.get(given[0], given[0])
    if verb != given[0]:
        _say(f"`vitrail {given[0]}` is now called `vitrail {verb}`; the old name works for one more release.")
    if verb not in VERBS:
        near = nearest(verb, VERBS)
        _say(
            f"There is no verb {verb!r}."
            + (f" Did you mean `vitrail {near}`?" if near else " See: vitrail --help")
        )
        return 2
    if any(word in {"-h", "--help"} for word in _before_dashes(given[1:])):
        _print(verb_help(verb))
        return 0
    return _call(verb, given[1:])


def _call(verb: str, words: list[str]) -> int:
    from cyclopts import CycloptsError

    app, names = _app(verb)
    options = _before_dashes(words)
    dashed = _dashed(options, names)
    for word in dashed:
        name = word[2:].partition("=")[0]
        if word.startswith("--") and name not in names:
            near = nearest(name, names)
            hint = f" Did you mean --{near}?" if near else ""
            _say(f"There is no option --{name}.{hint} See: vitrail {verb} --help")
            return 2
    try:
        command, bound, *_ = app.parse_args(
            [*dashed, *words[len(options) :]], exit_on_error=False, print_error=False
        )
    except CycloptsError as error:
        _say(f"{' '.join(str(error).split())} See: vitrail {verb} --help")
        return 2
    except VitrailError as error:  # an option is refused where it is read
        _say(str(error))
        return 2
    try:
        return int(command(*bound.args, **bound.kwargs) or 0)
    except UsageError as error:
        _say(str(error))
        return 2
    except UndecidedError as error:
        _say("\n".join([error.question, *_commands(verb, words, error)]))
        return 1
    except VitrailError as error:
        _say(str(error))
        return 1
    except OSError as error:  # an error that no other code handled
        _say(unusable(error))
        return 1
    except MemoryError:
        _say("Out of memory. Close other programs, or use fewer or smaller images or a smaller network.")
        return 1


def _commands(verb: str, words: list[str], error: UndecidedError) -> list[str]:
    """Return the typed command once per option that resolves the ambiguity."""
    whole = [word for word in words if word != "--"]
    return [
        f"  to take {what}: {quoted(['vitrail', verb, *whole, f'--{name}', value])}"
        for what, (name, value) in error.ways
    ]


def _before_dashes(words: list[str]) -> list[str]:
    """Return the words before a separate --: words after it are names, even if they begin with a dash."""
    return words[: words.index("--")] if "--" in words else words


def _app(verb: str) -> tuple[App, list[str]]:
    """Return the parser of one verb and the names of its options."""
    from vitrail.cli.help import app_of, option_names

    app = app_of(verb)
    return app, option_names(app)


def _dashed(words: list[str], names: list[str]) -> list[str]:
    """Turn key=value into --key=value; existing paths, and words that are not option names, do not change.

    Neither do values after an option: `--network position=2d`, `--set mixup=0.2`.
    """
    dashed: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        key, equals, value = word.partition("=")
        option = before.removeprefix("--").replace("_", "-")
        given = before.startswith("--") and option in names and f"no-{option}" not in names
        bare = re.fullmatch(r"[A-Za-z][A-Za-z_-]*", key)
        if word.startswith("--"):
            dashed.append(_renamed(word[2:], names))
        elif equals and bare and not given and not os.path.exists(word):
            dashed.append(_renamed(f"{key}={value}", names))
        else:
            dashed.append(word)
    return dashed


def _renamed(option: str, names: list[str]) -> str:
    """Return --option in our spelling: aliases replaced, underscores as dashes, true/false for switches."""
    key, equals, value = option.partition("=")
    name = ALIASES.get(key, key) if key.replace("_", "-") not in names else key
    name = name.replace("_", "-")
    if equals and f"no-{name}" in names and value.lower() in {"true", "false", "1", "0", "yes", "no"}:
        return f"--{name}" if value.lower() in {"true", "1", "yes"} else f"--no-{name}"
    return f"--{name}{equals}{value}"


def _say(text: str) -> None:
    sys.stderr.write(text.rstrip("\n") + "\n")


def _print(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n")


if __name__ == "__main__":
    main()
