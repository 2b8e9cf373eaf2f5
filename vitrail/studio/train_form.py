"""The form of a training, made from `TrainOptions` and the settings of a task: their names, types and help."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vitrail.core.catalog import DEFAULT_TASKS, presets
from vitrail.core.errors import SettingError
from vitrail.data.options import LayoutOptions
from vitrail.runs.train_options import TrainOptions, task_settings
from vitrail.studio.commands import kinds_of_options

GROUPS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("The network", ("model", "weights", "tune", "imgsz", "fit", "stride", "network", "recipe", "elastic", "pool")),
    ("How long", ("epochs", "time", "patience")),
    ("Learning", ("lr", "batch", "warmup", "weight_decay", "layer_decay", "ema", "loss", "balance", "seed")),
    ("Against overfitting", ("augment", "mixup", "cutmix", "smoothing", "erase", "drop_path")),
    ("The split", ("val", "test")),
    ("A teacher", ("teacher", "distill")),
    ("The machine", ("device", "precision", "micro", "workers", "compile", "grad_checkpointing")),
)  # fmt: skip
"""The order of the form; options that are in none of them follow at the end."""

ELSEWHERE = frozenset({"out", "set", *(field.name for field in fields(LayoutOptions))})
"""Options that are not in the form: the studio names the run, and a data set knows how it is read."""

OF_TASK = "set."
"""Stands before the name of a setting of the task in the form."""


@dataclass(frozen=True)
class Input:
    """One input of the form. `choices` are the only values, `hints` some of many."""

    name: str
    label: str
    help: str
    kind: Literal["text", "number", "choice", "switch"]
    choices: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    usual: str = ""
    value: str = ""


@dataclass(frozen=True)
class Group:
    """Inputs under one heading; `open` if one of them has a value."""

    heading: str
    inputs: tuple[Input, ...]

    @property
    def open(self) -> bool:
        """Whether the group holds a value."""
        return any(one.value for one in self.inputs)


def groups(values: Mapping[str, str], task: str = "") -> list[Group]:
    """Return the form with these values; with the settings of a task, if it is known."""
    inputs = {one.name: one for one in _inputs(values)}
    placed = {name for _, names in GROUPS for name in names}
    found = [Group(heading, tuple(inputs[name] for name in names)) for heading, names in GROUPS]
    if rest := [one for name, one in inputs.items() if name not in placed]:
        found.append(Group("More", tuple(rest)))
    if task:
        found.append(Group("The task", tuple(_task_inputs(task, values))))
    return found


def help_of(cls: type) -> dict[str, str]:
    """Return the help of each parameter in a docstring of NumPy's style."""
    text = (cls.__doc__ or "").partition("Parameters\n")[2]
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines()[1:]:
        if match := re.fullmatch(r" {4}(\w+)", line):
            name = match[1]
        elif name and line.strip():
            found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return found


def _inputs(values: Mapping[str, str]) -> Iterable[Input]:
    hints, told = get_type_hints(TrainOptions), help_of(TrainOptions)
    for field in fields(TrainOptions):
        if field.name not in ELSEWHERE:
            yield _input(field.name, hints[field.name], told.get(field.name, ""), values)


def _input(
    name: str, hint: Any, told: str, values: Mapping[str, str], prefix: str = "", usual: str = ""
) -> Input:
    label = name.replace("_", " ")
    value = values.get(prefix + name, "")
    stated = [one for one in (get_args(hint) or (hint,)) if one is not type(None)]
    literal = (
        hint
        if get_origin(hint) is Literal
        else next((one for one in stated if get_origin(one) is Literal), None)
    )
    some = _known(name) if not prefix else ()
    if literal is not None:
        choices = tuple(str(one) for one in get_args(literal))
        return Input(prefix + name, label, told, "choice", choices, usual=usual, value=value)
    if bool in stated:
        return Input(prefix + name, label, told, "switch", ("yes", "no"), usual=usual, value=value)
    number = bool(stated) and stated[0] in (int, float)
    return Input(prefix + name, label, told, "number" if number else "text", (), some, usual, value)


def _known(name: str) -> tuple[str, ...]:
    """Return names that an option may have, where there is a list."""
    if name == "model":
        return tuple(presets())
    if name == "task":
        return tuple(DEFAULT_TASKS.values())
    if name == "recipe":
        from vitrail.runs.recipe import recipes

        return tuple(recipes())
    return ("auto", "none") if name == "weights" else ()


def _task_inputs(task: str, values: Mapping[str, str]) -> Iterable[Input]:
    """Yield an input for each setting of a task that is no option of its own."""
    from vitrail.runs.task_settings import settings_class

    own = {field.name for field in fields(TrainOptions)}
    for name, field in settings_class(task).model_fields.items():
        if name not in own:
            usual = "" if field.default is None else str(field.default)
            yield _input(name, field.annotation, field.description or "", values, OF_TASK, usual)


def options_of(form: Mapping[str, str], fixed: Mapping[str, str]) -> TrainOptions:
    """Return the options of a form that was sent; `fixed` are those of the data set and the run.

    Raises:
        SettingError: a value is none of its kind; the message names the input.
    """
    given: dict[str, Any] = dict(fixed)
    kinds = kinds_of_options()
    known = {one.name: one for one in _inputs({})}
    for name, text in form.items():
        if name in known and text.strip():
            given[name] = _value(known[name], text.strip(), kinds[name])
    settings = {
        name.removeprefix(OF_TASK): text.strip() for name, text in form.items() if name.startswith(OF_TASK)
    }
    if stated := ",".join(f"{name}={_setting(text)}" for name, text in settings.items() if text):
        task_settings(stated)
        given["set"] = stated
    return TrainOptions(**given)


def _setting(text: str) -> str:
    return {"yes": "true", "no": "false"}.get(text, text)


def _value(one: Input, text: str, kind: type) -> Any:
    if one.kind == "switch":
        return text == "yes"
    if one.kind == "choice" and text not in one.choices:
        raise SettingError(f"“{one.label}” must be one of {', '.join(one.choices)}, not {text!r}.")
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise SettingError(
            f"“{one.label}” must be {what}, not {text!r}. Correct it, or leave it empty."
        ) from None
