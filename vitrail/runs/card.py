"""The model card, README.md of a run, in the format that model hubs read; it names no path and shows no picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from vitrail import __version__
from vitrail.runs.model_file import Header

CLASSES = 60
"""Classes that are named; of more the card says how many there are."""

PAIRS = 10
FEW = 30
"""Test pictures of a class below which its score is hardly more than a hint."""


def card(header: Header, report: Mapping[str, Any]) -> str:
    """Return the card of a model file out of its header and of the run's report."""
    labels: list[str] = header.task["labels"]
    lines = [
        "---",
        yaml.safe_dump(_front(header, report), sort_keys=False, allow_unicode=True).strip(),
        "---",
    ]
    lines += [f"# {header.name}, {len(labels)} classes", "", report["verdict"], ""]
    lines += _about(header, labels, report)
    if "splits" in report.get("data", {}):
        lines += _data(report["data"])
    if "per_class" in report.get("test", {}):
        lines += _scores(report["test"])
        lines += _confused(report["test"].get("confusion"))
    if "calibration" in report:
        lines += _calibrated(report["calibration"])
    lines += ["## Limits", "", *_limits(labels, report), ""]
    lines += _use(report)
    return "\n".join(lines)


def _front(header: Header, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the block that hubs index; a licence is named only where the weights brought one."""
    front: dict[str, Any] = {"library_name": "vitrail", "pipeline_tag": "image-classification"}
    if header.licence:
        front["license"] = header.licence.lower()
    front["tags"] = ["vitrail", "image-classification"]
    accuracy = report.get("test", {}).get("accuracy")
    if isinstance(accuracy, Mapping):
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"name": "pictures kept out of training", "type": "own"},
            "metrics": [{"type": "accuracy", "value": accuracy["value"]}],
        }
        front |= {"metrics": ["accuracy"], "model-index": [{"name": header.name, "results": [result]}]}
    return front


def _about(header: Header, labels: Sequence[str], report: Mapping[str, Any]) -> list[str]:
    more = f" and {len(labels) - CLASSES} more" if len(labels) > CLASSES else ""
    size = " × ".join(map(str, header.preprocess["size"]))
    licence = f", licence {header.licence}" if header.licence else ""
    start = "scratch" if header.weights == "none" else f"{header.weights}{licence}"
    return [
        f"- Classes: {', '.join(labels[:CLASSES])}{more}",
        f"- Input: {size} px, fitted by {header.preprocess['fit']}",
        f"- Started from: {start}",
        f"- Trained in {report['seconds']:.0f} s with vitrail {__version__}",
        "",
    ]


def _data(data: Mapping[str, Any]) -> list[str]:
    splits: Mapping[str, Mapping[str, int]] = data["splits"]
    names = list(next(iter(splits.values())))
    lines = ["## Data", "", "| class | " + " | ".join(splits) + " |", "|---" * (1 + len(splits)) + "|"]
    for name in names[:CLASSES]:
        lines.append(f"| {_cell(name)} | " + " | ".join(f"{n[name]:,}" for n in splits.values()) + " |")
    out = sum(number for state, number in data["states"].items() if state != "kept")
    return [*lines, "", f"Kept out (unreadable, contradictory or dropped): {out:,}.", ""]


def _scores(test: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Scores on pictures it never saw",
        "",
        "| class | pictures | right | 95 % interval | precision | F1 | AUROC |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in list(test["per_class"].items())[:CLASSES]:
        if not row["pictures"]:
            lines.append(f"| {_cell(name)} | 0 | – | – | – | – | – |")
            continue
        others = " | ".join(_percent(row[one]["value"]) for one in ("precision", "f1", "auroc") if one in row)
        span = f"{_percent(row['low'])} – {_percent(row['high'])}"
        lines.append(f"| {_cell(name)} | {row['pictures']} | {_percent(row['value'])} | {span} | {others} |")
    return [*lines, ""]


def _confused(confusion: Mapping[str, Any] | None) -> list[str]:
    if not confusion:
        return []
    labels, counts = confusion["labels"], confusion["counts"]
    pairs = [
        (counts[i][j], labels[i], labels[j])
        for i in range(len(labels))
        for j in range(len(labels))
        if i != j and counts[i][j]
    ]
    pairs.sort(key=lambda pair: -pair[0])
    said = [f"- {true} taken for {answer}: {number}" for number, true, answer in pairs[:PAIRS]]
    return ["## Mostly confused", "", *(said or ["- nothing"]), ""]


def _calibrated(found: Mapping[str, Any]) -> list[str]:
    return [
        "## Calibration",
        "",
        f"Expected calibration error {_percent(found['ece_after'])} (before temperature scaling "
        f"{_percent(found['ece_before'])}); a perfectly calibrated model would show {_percent(found['ece_noise'])} "
        f"on as many pictures. Temperature {found['temperature']:g}.",
        "",
    ]


def _limits(labels: Sequence[str], report: Mapping[str, Any]) -> Iterator[str]:
    yield "- It answers with these classes whatever a picture shows; it was not tested on anything else."
    table: Mapping[str, Any] = report.get("test", {}).get("per_class", {})
    few = [name for name in labels if name in table and table[name]["pictures"] < FEW]
    if few:
        shown = ", ".join(few[:8]) + (f" and {len(few) - 8} more" if len(few) > 8 else "")
        yield f"- Fewer than {FEW} test pictures, so their scores are only a hint: {shown}."
    yield "- The scores hold for pictures taken like those it was trained on; elsewhere, measure: `vitrail eval`."


def _use(report: Mapping[str, Any]) -> list[str]:
    again = report.get("reproduce")
    return [
        "## Use",
        "",
        "```",
        "vitrail predict model.safetensors picture.jpg",
        *([f"{again}    # trains it again"] if again else []),
        "```",
        "",
        "The file holds its classes, its preprocessing and a proof picture; opening it checks that it answers as it",
        "did in training.",
        "",
    ]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
