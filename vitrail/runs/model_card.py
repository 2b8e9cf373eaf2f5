"""The model card (README.md of a run) in the format of model hubs. It holds no paths and no images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from vitrail import __version__
from vitrail.core.text import command
from vitrail.data.preprocess import Preprocess
from vitrail.runs.model_file import Header
from vitrail.tasks.base import Task
from vitrail.tasks.image_makers import MakesImages
from vitrail.tasks.result import (
    Cell,
    Column,
    Limits,
    Matrix,
    Number,
    Reliability,
    Result,
    Section,
    TableSection,
    measured,
)

CLASSES = 60
"""Number of classes that the card names; of the others it gives the number."""

PAIRS = 10


def card(header: Header, task: Task[Any, Any], report: Mapping[str, Any], result: Result) -> str:
    """Return the card of a model file from its header, its task, and the report and result of the run."""
    labels = task.labels
    lines = [
        "---",
        yaml.safe_dump(_front(header, task, result), sort_keys=False, allow_unicode=True).strip(),
        "---",
    ]
    classes = f", {len(labels)} classes" if labels else ""
    lines += [f"# {header.name}{classes}", "", report["verdict"], ""]
    lines += _about(header, labels, report)
    if "splits" in report.get("data", {}):
        lines += _data(report["data"], labels)
    for section in result.sections:
        lines += _section(section)
    limits = [line for one in result.sections if isinstance(one, Limits) for line in one.lines]
    lines += ["## Limits", "", *(f"- {line}" for line in (*limits, ELSEWHERE)), ""]
    lines += _use(task, report)
    return "\n".join(lines)


ELSEWHERE = (
    "The scores are valid for images like the training images. For other images, measure: `vitrail eval`."
)


def _front(header: Header, task: Task[Any, Any], result: Result) -> dict[str, Any]:
    """Return the front matter for model hubs; a licence is named only if the weights have one."""
    exports = task.exports
    tag = [exports.pipeline_tag] if exports else []
    front: dict[str, Any] = {"library_name": "vitrail", **({"pipeline_tag": tag[0]} if tag else {})}
    if header.licence:
        front["license"] = header.licence.lower()
    front["tags"] = ["vitrail", *tag]
    metrics = [name for name in (exports.metrics if exports else ()) if name in result.numbers]
    if metrics:
        scores = {
            "task": {"type": tag[0]},
            "dataset": {"name": "images kept out of training", "type": "own"},
            "metrics": [{"type": name, "value": result.numbers[name].value} for name in metrics],
        }
        front |= {"metrics": metrics, "model-index": [{"name": header.name, "results": [scores]}]}
    return front


def _about(header: Header, labels: Sequence[str], report: Mapping[str, Any]) -> list[str]:
    more = f" and {len(labels) - CLASSES} more" if len(labels) > CLASSES else ""
    size = " × ".join(map(str, header.preprocess["size"]))
    licence = f", licence {header.licence}" if header.licence else ""
    start = "scratch" if header.weights == "none" else f"{header.weights}{licence}"
    return [
        *([f"- Classes: {', '.join(labels[:CLASSES])}{more}"] if labels else []),
        f"- Input: {size} px, fitted by {header.preprocess['fit']}",
        *_bands(header),
        f"- Started from: {start}",
        f"- Trained in {report['seconds']:.0f} s with vitrail {__version__}",
        "",
    ]


def _bands(header: Header) -> list[str]:
    """Return lines on the named bands: unit and range in training, in the order of the network."""
    steps = Preprocess.from_dict(header.preprocess)
    if not steps.bands:
        return []
    pixel = f" with pixels of {steps.pixel:g} m" if steps.pixel else ""
    windows = f", in windows of {steps.window} × {steps.window} px{pixel}" if steps.window else ""
    return [
        f"- Reads {len(steps.bands)} bands by name{windows}:",
        *(f"    - {band.told}" for band in steps.bands),
    ]


def _data(data: Mapping[str, Any], labels: Sequence[str]) -> list[str]:
    splits: Mapping[str, Mapping[str, int]] = data["splits"]
    names = list(next(iter(splits.values())))
    lines = [
        "## Data",
        "",
        f"| {'class' if labels and names != [''] else ''} | " + " | ".join(splits) + " |",
        "|---" * (1 + len(splits)) + "|",
    ]
    for name in names[:CLASSES]:
        lines.append(
            f"| {_cell(name) or 'images'} | " + " | ".join(f"{n[name]:,}" for n in splits.values()) + " |"
        )
    out = sum(number for state, number in data["states"].items() if state != "kept")
    return [*lines, "", f"Kept out (unreadable, contradictory or dropped): {out:,}.", ""]


def _section(section: Section) -> list[str]:
    """Return the lines of a card for a section; sections with images and curves have none."""
    if isinstance(section, TableSection):
        return _table(section)
    if isinstance(section, Matrix):
        return _confused(section)
    return _calibrated(section) if isinstance(section, Reliability) else []


def _table(section: TableSection) -> list[str]:
    places = [i for i, column in enumerate(section.table.columns) if column.card != ""]
    columns = [section.table.columns[i] for i in places]
    head = [name for column in columns for name in _heads(column)]
    lines = [f"## {section.card}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in section.table.rows[:CLASSES]:
        cells = [
            text for i, column in zip(places, columns, strict=True) for text in _cells(row[i], column.spread)
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _heads(column: Column) -> list[str]:
    name = column.card or column.name
    return [name, "95 % interval"] if column.spread else [name]


def _cells(cell: Cell, spread: bool) -> list[str]:
    """Return the texts of a cell: one, or for a number with an interval two."""
    if not isinstance(cell, Number):
        return [_cell(str(cell))]
    if not spread:
        return [cell.text()]
    ends = [measured(end, cell.unit) for end in (cell.low, cell.high)]
    return [cell.text(), "–" if cell.low is None else " – ".join(ends)]


def _confused(matrix: Matrix) -> list[str]:
    k, counts = range(len(matrix.labels)), matrix.counts
    pairs = [(counts[i][j], matrix.mistake(i, j)) for i in k for j in k if i != j and counts[i][j]]
    pairs.sort(key=lambda pair: -pair[0])
    lines = [f"- {mistake}: {number}" for number, mistake in pairs[:PAIRS]]
    return ["## Most frequent confusions", "", *(lines or ["- none"]), ""]


def _calibrated(section: Reliability) -> list[str]:
    calibration = section.calibration
    after, before, noise = (
        measured(calibration.get(name), "%") for name in ("ece_after", "ece_before", "ece_noise")
    )
    plain = f" (before temperature scaling {before})" if "ece_before" in calibration else ""
    chance = (
        f"; a perfectly calibrated model would show {noise} on the same number of images"
        if "ece_noise" in calibration
        else ""
    )
    return [
        "## Calibration",
        "",
        f"Expected calibration error {after}{plain}{chance}. Temperature {calibration['temperature']:g}.",
        "",
    ]


def _use(task: Task[Any, Any], report: Mapping[str, Any]) -> list[str]:
    again, labels = report.get("reproduce"), task.labels
    return [
        "## Use",
        "",
        "```",
        _first(task),
        *([f"{again}    # trains it again"] if again else []),
        "```",
        "",
        f"The file holds its {'classes, its ' if labels else ''}preprocessing and its output on a generated "
        "image. Opening it",
        "checks that the output is still the same.",
        "",
    ]


def _first(task: Task[Any, Any]) -> str:
    """Return the command that uses a model of this task."""
    if isinstance(task, MakesImages):
        return command("predict", "model.safetensors", "--class", task.labels[0], "--n", 16, "--out", "made/")
    if task.answers:
        return "vitrail predict model.safetensors picture.jpg"
    return "vitrail train photos/ --weights model.safetensors --tune full"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
