"""Help pages, generated only from each verb's signature and docstring: fast, no torch, no rich."""

from __future__ import annotations

from importlib import import_module
from textwrap import fill
from typing import TYPE_CHECKING, Any

from vitrail.cli.verbs import VERBS

if TYPE_CHECKING:
    from cyclopts import App

WIDTH = 100


def overview() -> str:
    """Return the page of `vitrail --help`."""
    verbs = [f"  {name:<10} {line}" for name, (_, line) in VERBS.items()]
    return "\n".join(
        [
            "vitrail: from a folder of images to a Vision Transformer you can trust.",
            "",
            "Usage: vitrail VERB [WORDS] [OPTIONS]",
            "",
            *verbs,
            "",
            "Begin here:",
            "  vitrail train digits            a built-in data set; replace it with your own folder",
            "  vitrail train photos/           one folder per class: photos/cat/1.jpg",
            "",
            "Options are written --epochs 20 or epochs=20. More on a verb: vitrail VERB --help",
            "Exit codes: 0 success, 1 an error with a hint, 2 wrong usage.",
        ]
    )


def app_of(verb: str) -> App:
    """Return the parser of one verb."""
    from cyclopts import App

    module, _, name = VERBS[verb][0].partition(":")
    app = App(name=f"vitrail {verb}", help_flags=[], version_flags=[], result_action="return_value")
    app.default(getattr(import_module(module), name))
    return app


def option_names(app: App) -> list[str]:
    """Return the names of all options, without dashes."""
    names = [name for argument in _arguments(app) for name in argument.names]
    return [name.lstrip("-") for name in names if name.startswith("--")]


def verb_help(verb: str) -> str:
    """Return the page of `vitrail VERB --help`."""
    app = app_of(verb)
    function = app.default_command
    arguments = _arguments(app)
    words = [a for a in arguments if a.index is not None]
    options = [a for a in arguments if a.index is None]
    usage = " ".join([verb, *(_word(a) for a in words)])
    paragraphs = (function.__doc__ or "").split("Parameters\n")[0].strip().split("\n\n")
    lines = [f"Usage: vitrail {usage} [OPTIONS]", ""]
    for paragraph in paragraphs:
        indented = any(line.startswith("    ") for line in paragraph.splitlines()[1:])
        lines += [*(_dedent(paragraph) if indented else [fill(" ".join(paragraph.split()), WIDTH)]), ""]
    for title, group in (("Words:", words), ("Options:", options)):
        if group:
            lines += [title, *(_row(a) for a in group), ""]
    return "\n".join(lines).rstrip()


def _arguments(app: App) -> list[Any]:
    return [a for a in app.assemble_argument_collection(parse_docstring=True) if not a.children and a.show]


def _dedent(paragraph: str) -> list[str]:
    return [line.removeprefix("    ") for line in paragraph.splitlines()]


def _word(argument: Any) -> str:
    name = argument.name.lstrip("-").upper()
    many = "tuple" in str(argument.hint)
    shown = f"{name} …" if many else name
    return shown if argument.required else f"[{shown}]"


def _row(argument: Any) -> str:
    name = _word(argument) if argument.index is not None else _option(argument)
    default = argument.field_info.default
    hidden = default in (None, False, "", ()) or argument.required or default is argument.field_info.empty
    shown = "" if hidden else f" [{default}]"
    text = fill(
        f"{argument.parameter.help or ''}{shown}", WIDTH, initial_indent=" " * 26, subsequent_indent=" " * 26
    )
    head = f"  {name}"
    return head.ljust(26) + text.lstrip() if len(head) < 25 else f"{head}\n{text}"


def _option(argument: Any) -> str:
    name = next(n for n in argument.names if n.startswith("--") and not n.startswith("--no-"))
    short = next((f"{n}, " for n in argument.names if len(n) == 2), "")
    kinds = {"int": " N", "float": " X", "str": " TEXT"}
    hint = str(argument.hint)
    kind = " WORD" if "Literal" in hint else next((sign for word, sign in kinds.items() if word in hint), "")
    return f"{short}{name}{kind}"
