"""What people read of a comparison: headline, verdicts, table, how it was made; and all of it as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitrail.core.text import clock
from vitrail.data.labels import count, shorten
from vitrail.studies.compare.contestants import Contestant, augmentation_differs
from vitrail.studies.compare.outcome import Pair
from vitrail.weights.first_layer import said_of_bands


def verdict_lines(
    found: Sequence[Pair],
    order: Sequence[str],
    contestants: Sequence[Contestant],
    origins: Mapping[str, str],
    timed: bool,
) -> list[str]:
    """Return the sentences at the head: who is best, each pair, and whether the architecture gets the credit.

    `order` names the contestants, the best score first; `timed` tells whether all had the same time.
    """
    lines = pair_lines(found, order)
    different = any(pair.verdict is not None and pair.verdict.kind == "better" for pair in found)
    return [*lines, credit(contestants, origins, timed, different)]


def pair_lines(found: Sequence[Pair], order: Sequence[str]) -> list[str]:
    """Return a headline where there are more than two, and the sentence of every pair, the best networks first."""
    rank = {name: at for at, name in enumerate(order)}
    ordered = sorted(found, key=lambda pair: sorted((rank[pair.first], rank[pair.second])))
    lines = [pair.sentence() for pair in ordered]
    if len(found) < 2:
        return lines
    confidence = max((pair.verdict.confidence for pair in found if pair.verdict), default=0.95)
    return [
        _headline(ordered, order[0]),
        *lines,
        f"{count(len(found), 'pair')} are compared, so each has to be clearer: the intervals are read at up to "
        f"{100 * confidence:.1f} % (Holm's correction).",
    ]


def _headline(found: Sequence[Pair], best: str) -> str:
    """Say whether one is better than all others, or else whom it cannot be told from."""
    open_ = [
        pair.second if pair.first == best else pair.first
        for pair in found
        if best in (pair.first, pair.second) and (pair.verdict is None or pair.verdict.kind != "better")
        if best not in pair.crashed and not pair.crashed
    ]
    if not open_:
        return f"{best} is the best of all."
    return f"No single winner: {best} scores highest, but is not told apart from {' and '.join(open_)}."


def credit(
    contestants: Sequence[Contestant], origins: Mapping[str, str], timed: bool = True, different: bool = True
) -> str:
    """Say whether a difference is one of the architectures."""
    if differing := augmentation_differs(contestants):
        return (
            f"No verdict on the architectures: the augmentation differs in {differing}. "
            "Leave --own-augmentation out to compare them."
        )
    weights = {one.name: one.pretrained for one in contestants}
    if set(weights.values()) == {"none"}:
        equal = "equal augmentation and time" if timed else "equal augmentation and equally many epochs"
        what = "the difference is one" if different else "a difference would be one"
        return f"All start from scratch, with {equal}: {what} of the architectures, each with its family's recipe."
    each = ", ".join(f"{name}: {origins.get(name) or weights[name]}" for name in weights)
    if len({(one.recipe.model.name, repr(one.recipe.model.settings)) for one in contestants}) == 1:
        what = "the difference is one" if different else "a difference would be one"
        return f"All are the same network ({each}): {what} of where it starts.{_adapted(contestants)}"
    return (
        f"Pretraining differs ({each}), so the architecture gets no credit for a difference. "
        f"To compare the architectures alone: --weights none{_adapted(contestants)}"
    )


def _adapted(contestants: Sequence[Contestant]) -> str:
    """Say what named bands took of weights of photographs; empty where none did."""
    bands = next((model.bands for one in contestants if (model := one.recipe.model).weights != "none"), ())
    return f" {said_of_bands([band.name for band in bands])}" if bands else ""


HEAD = (
    "network",
    "score",
    "weights",
    "parameters",
    "multiply-adds",
    "one image",
    "images/s",
    "memory",
    "epochs",
    "minutes",
    "calibration error",
)


def table_of(report: Mapping[str, Any]) -> list[list[str]]:
    """Return one row a contestant for people, under `HEAD`."""
    return [
        [
            row["name"],
            _score(row),
            row["weights"],
            _in_units(row["parameters"], ((1e6, " M"), (1e3, " k"))),
            _in_units(row["macs"], ((1e9, " G"), (1e6, " M"))),
            "–" if row["latency"] is None else f"{1000 * row['latency']:.1f} ms",
            "–" if row["throughput"] is None else f"{row['throughput']:,.0f}",
            _in_units(row["peak"], ((1e9, " GB"), (1e6, " MB"))),
            "–" if row["epochs"] is None else f"{row['epochs']:.1f}",
            f"{row['seconds'] / 60:.1f}" if row["seconds"] else "–",
            "–" if row["calibration_error"] is None else f"{100 * row['calibration_error']:.1f} %",
        ]
        for row in report["contestants"]
    ]


def _score(row: Mapping[str, Any]) -> str:
    if row["crashed"]:
        return "crashed"
    score = row["score"]
    return f"{100 * score['value']:.1f} % ({100 * score['low']:.1f} to {100 * score['high']:.1f})"


def _in_units(value: float | None, units: Sequence[tuple[float, str]]) -> str:
    if value is None:
        return "–"
    size, name = next((one for one in units if value >= one[0]), (1.0, ""))
    return f"{value / size:.1f}{name}"


def notes_of(report: Mapping[str, Any]) -> list[str]:
    """Return how the comparison was made, in sentences."""
    made, data = report["rounds"], report["data"]
    if made["kind"] == "given models":
        return [
            f"{count(data['images'], 'test image')}, on which every model was scored; images of a group count once."
        ]
    if not made["seconds"] and not made["epochs"]:
        return [
            f"{count(data['images'], 'image')}, each tested once in {made['number']} folds by heads that never saw it; "
            "images of a group count once."
        ]
    kind = (
        f"{made['number']} folds: every image is tested once, by networks that never saw it"
        if made["kind"] == "folds"
        else f"{made['number']} trainings with other seeds, tested on the images that the source gives for it"
    )
    length = (
        f"A training took {clock(made['seconds'])} of the {report['minutes']:g} minutes, the same for all."
        if made["seconds"]
        else f"Every training had {count(made['epochs'], 'epoch')}."
    )
    drawn = "split, order and augmentation" if made["kind"] == "folds" else "order and augmentation"
    scratch = all(row["weights"] == "none" for row in report["contestants"])
    lines = [
        f"{count(data['images'], 'test image')}; {kind}. {length}",
        f"Each round draws {drawn}{' and initial weights' if scratch else ''} anew. The intervals (95 % unless stated) "
        "count both that the images are a sample and that trainings differ; images of a group count once.",
    ]
    short = [row["name"] for row in report["contestants"] if row["epochs"] is not None and row["epochs"] < 1]
    lines += [f"Trained for less than one epoch: {', '.join(short)}. Give more time."] if short else []
    lines += [f"Changed for want of time: {made['changed']}."] if made["changed"] else []
    lines += [f"{row['name']} crashed: {row['crashed']}" for row in report["contestants"] if row["crashed"]]
    return lines


def markdown_of(report: Mapping[str, Any]) -> str:
    """Return the comparison as Markdown: verdict, table, what only one gets right, classes, how it was made."""
    verdict = "\n".join(f"- {line}" for line in report["verdict"])
    parts = ["# Which network is better", verdict, _markdown([list(HEAD), *table_of(report)])]
    alone = [
        f"- only {pair[side]} is correct: {count(pair[key]['images'], 'image')} ({shorten(pair[key]['ids'])})"
        for pair in report["pairs"]
        for side, key in (("first", "only_first"), ("second", "only_second"))
        if key in pair and pair[key]["images"]
    ]
    parts += ["\n".join(alone)] if alone else []
    classes = class_table(report)
    parts += [_markdown(classes)] if classes else []
    parts += [f"## How robust they are\n\n{lines}"] if (lines := _robust(report)) else []
    return "\n\n".join([*parts, *notes_of(report)]) + "\n"


def _robust(report: Mapping[str, Any]) -> str:
    """Return how robust the models are, as a list; empty where it was not measured."""
    found = report.get("robustness", {})
    return "\n".join(f"- {line}" for line in (found["verdict"], *found["sentences"])) if found else ""


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def class_table(report: Mapping[str, Any]) -> list[list[str]]:
    """Return a head and one row a class: its images, and each contestant's score with its interval."""
    rows = [row for row in report["contestants"] if not row["crashed"]]
    names = list(rows[0]["by_class"]) if rows else []
    if len(names) < 2:
        return []
    made = [["class", "images", *(row["name"] for row in rows)]]
    for name in names:
        cells = [row["by_class"][name] for row in rows]
        made.append(
            [name, f"{cells[0]['images']:,}"]
            + [
                f"{100 * one['value']:.1f} ({100 * one['low']:.0f} to {100 * one['high']:.0f})"
                for one in cells
            ]
        )
    return made
